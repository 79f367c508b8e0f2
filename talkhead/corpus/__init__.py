"""The embedded corpus: drawn faces that speak, with every truth known."""
