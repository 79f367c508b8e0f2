"""Stages: one LightningModule a file, training logic only."""
