"""Ids: a prefix that says what a thing is, and a UUIDv7, so that ids sort by the time they were made."""

from __future__ import annotations

import re
import secrets
import time

_ID = re.compile(r"[a-z]{2,8}_[0-9a-f]{32}")


def uuid7_hex(now_ms: int, random_bits: int) -> str:
    """Return the 32 hex digits of a UUIDv7 (RFC 9562, 5.7) of a time and 74 random bits."""
    rand_a = (random_bits >> 62) & 0xFFF
    rand_b = random_bits & ((1 << 62) - 1)
    value = (now_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return f"{value:032x}"


def new_id(prefix: str) -> str:
    """Return a new id such as `job_0197...`: later ids are greater, to the millisecond."""
    return f"{prefix}_{uuid7_hex(time.time_ns() // 1_000_000, secrets.randbits(74))}"


def is_id(text: str, prefix: str) -> bool:
    """Tell whether a text has the form of an id of this prefix."""
    return text.startswith(prefix + "_") and _ID.fullmatch(text) is not None
