"""Weights from elsewhere: reading published YOLOv5 checkpoints safely, and starting a network from them."""
