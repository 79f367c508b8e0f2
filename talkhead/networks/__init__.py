"""Networks: plain modules that a flat spec rebuilds."""
