"""Raw media to a prepared set: layouts, clips, engine, finishing."""
