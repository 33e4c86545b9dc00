"""Read the Repr-Digest header (RFC 9530), with which a client says what it means to have sent."""

from __future__ import annotations

import base64
import binascii
import re

from api.errors import BadRequestError

_MEMBER = re.compile(r"\s*([a-z0-9-]+)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?")


def sha256_of(header: str | None) -> str | None:
    """Return the sha256 in hex; None where the header is absent or names only other algorithms.

    Raises BadRequestError where it cannot be read.
    """
    if header is None:
        return None
    for part in header.split(","):
        match = _MEMBER.fullmatch(part)
        if match is None:
            raise _unreadable(header)
        if match[1] == "sha-256":
            return _hex(match[2], header)
    return None


def _hex(text: str, header: str) -> str:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _unreadable(header) from error
    if len(digest) != 32:
        raise _unreadable(header)
    return digest.hex()


def _unreadable(header: str) -> BadRequestError:
    place = {"pointer": "Repr-Digest", "message": "expected sha-256=:base64:", "value": header[:200]}
    return BadRequestError("DIGEST_UNREADABLE", "the Repr-Digest header cannot be read", errors=[place])
