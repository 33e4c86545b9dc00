"""Weights over HTTP: received, listed, explained, held against a network."""
