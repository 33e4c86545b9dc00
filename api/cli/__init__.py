"""The `trainshed` command: the client in a terminal or a pipeline. It knows HTTP only through the client."""
