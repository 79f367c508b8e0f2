"""One Lightning datamodule for every stage, over prepared sets."""
