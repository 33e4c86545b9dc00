"""The textbook way of each part of training, to compare with: right by the same tests, and not made fast."""
