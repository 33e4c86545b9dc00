"""Celery: claims jobs, supervises the child that trains, reports; knows of the api only its domain."""
