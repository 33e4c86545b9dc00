"""Live events: history from journals, the stream in Redis, and the watchers fed from them."""
