"""Noise schedules, samplers and guidance for models that predict clean data."""
