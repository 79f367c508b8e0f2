"""Metrics, one per file: a pure function and a thin torchmetrics class that accumulates it."""
