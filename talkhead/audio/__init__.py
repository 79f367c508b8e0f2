"""Sound on the video clock."""
