"""Whether a client's copy is still good (RFC 9110, 8.8.3 and 13.1.2)."""

from __future__ import annotations


def matches(header: str, etag: str) -> bool:
    """Tell whether If-None-Match names a tag; compared weakly."""
    known = {item.strip().removeprefix("W/") for item in header.split(",")}
    return "*" in known or etag.removeprefix("W/") in known
