"""The commands that start from a file of weights: each reads its options, calls one module, and prints."""
