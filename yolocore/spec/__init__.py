"""What a run is, as torch-free values: configuration, model grammar, datasets, labels, events."""
