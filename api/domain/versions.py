"""The versions that parts of one service compare before they work together. Reads no settings, no database.

The program's is that of the installed package; the schema's is in `store`, the envelope's in `wire`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

API_VERSION = "v1"
UNKNOWN = "unknown"


@lru_cache(maxsize=1)
def program_version() -> str:
    """Return the version of this program; `unknown` where it runs without being installed."""
    try:
        return version("trainshed")
    except PackageNotFoundError:
        return UNKNOWN
