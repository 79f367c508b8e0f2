"""Loss terms, each a function or a small module with its equation."""
