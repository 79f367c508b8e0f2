"""Callbacks watch or nudge a run; they never define a loss."""
