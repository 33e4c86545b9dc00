"""Jobs over HTTP: submitted, watched, cancelled, and what they left behind."""
