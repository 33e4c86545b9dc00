"""Datasets over HTTP: received, listed, explained."""
