"""Workers over HTTP, and whether the service itself is well."""
