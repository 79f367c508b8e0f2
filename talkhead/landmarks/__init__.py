"""Face tracking behind one small interface."""
