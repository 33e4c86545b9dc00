"""Bytes that come in over HTTP, whole or not at all."""
