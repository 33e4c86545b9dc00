"""The parts of the one-machine stack: its lock, its members, and the supervisor that keeps them up.

It starts programs and watches them; what they do inside is theirs. `api.local` puts the parts together.
"""
