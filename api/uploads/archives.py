"""Tell by its first bytes whether a body can be an archive, before the rest of it is received.

Only a glance: the intake opens the file later, in a child with limits.
"""

from __future__ import annotations

from api.domain.archives import HEAD_BYTES, is_tar_header

__all__ = ["HEAD_BYTES", "archive_kind"]

_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PK\x07\x08": "zip",
    b"\x1f\x8b": "tar.gz",
    b"\x28\xb5\x2f\xfd": "tar.zst",
}


def archive_kind(head: bytes) -> str | None:
    """Return zip, tar, tar.gz or tar.zst by the first 512 bytes; None for anything else."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return "tar" if is_tar_header(head) else None
