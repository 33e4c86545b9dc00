"""Samples that show the service: a generated dataset, small models, and the demo that trains them."""
