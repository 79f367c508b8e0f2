"""Reading and writing video, sound and pictures."""
