"""talkhead: train, compare and run audio-driven talking-head systems."""

__version__ = "0.1.0"
