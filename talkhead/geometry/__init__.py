"""Face topology, poses, crops and motion descriptors."""
