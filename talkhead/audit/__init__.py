"""Training-data audit: what is wrong with the clips of a prepared set, and what to do about it."""
