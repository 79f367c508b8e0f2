"""Scores of video files: pairing, judges, measurement of each pair, and their summary."""
