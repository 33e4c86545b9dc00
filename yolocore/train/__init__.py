"""Training: the loop and what it holds; it builds nothing itself and knows no whole configuration."""
