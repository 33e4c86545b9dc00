"""What training minimises; it gets anchors and strides as arguments and never sees a network or a dataset."""
