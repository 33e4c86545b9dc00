"""How good a network is: matching, average precision, the validation pass and its pictures."""
