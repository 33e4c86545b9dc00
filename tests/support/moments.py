"""Random moments of fault tests, from a seed that is printed and can be given again."""

from __future__ import annotations

import os
import random

SEED_VARIABLE = "TRAINSHED_TEST_SEED"


def seeded(what: str) -> random.Random:
    """Return a generator whose seed is printed; TRAINSHED_TEST_SEED repeats a run."""
    given = os.environ.get(SEED_VARIABLE)
    seed = int(given) if given else random.SystemRandom().randrange(10**9)
    print(f"{what}: {SEED_VARIABLE}={seed}")
    return random.Random(seed)
