"""Arithmetic on boxes and targets that several parts of the core share; it knows no files and no network."""
