"""What the API and the workers share: settings, tables, the books of jobs, tasks and data, names on the wire.

Imports nothing of HTTP, of the worker or of the training core beyond its spec.
"""
