"""Pictures from meshes: the faces of the embedded corpus and animated portraits."""
