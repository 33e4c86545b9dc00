"""Measured figures: what the service and its trainer cost, against the bounds they are built to keep."""
