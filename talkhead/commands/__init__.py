"""The commands of the program besides training; each is imported when it is called."""
