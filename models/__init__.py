"""Models: the registry of what is shipped, and (with the extra `train`) architectures, training and export."""
