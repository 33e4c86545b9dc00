"""Whether this client and a service fit together, told by two version numbers. It knows no network."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

HEADER = "Trainshed-Version"
UNKNOWN = "unknown"

Distance = Literal["none", "minor", "major"]


@lru_cache(maxsize=1)
def client_version() -> str:
    """Return the version of this client; `unknown` where it runs without being installed."""
    try:
        return version("trainshed")
    except PackageNotFoundError:
        return UNKNOWN


def distance(mine: str, other: str) -> Distance:
    """Return how far two versions are apart by their first and second number; none where one is unknown."""
    ours, theirs = _numbers(mine), _numbers(other)
    if ours is None or theirs is None or ours == theirs:
        return "none"
    return "minor" if ours[0] == theirs[0] else "major"


def _numbers(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        return None
    return int(parts[0]), int(parts[1])
