"""Tell by its first bytes whether a body can be an archive, before the rest of it is received.

Only a glance: the intake opens the file later, in a child with limits.
"""

from __future__ import annotations

HEAD_BYTES = 512
_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PK\x07\x08": "zip",
    b"\x1f\x8b": "tar.gz",
    b"\x28\xb5\x2f\xfd": "tar.zst",
}
_CHECKSUM = slice(148, 156)


def archive_kind(head: bytes) -> str | None:
    """Return zip, tar, tar.gz or tar.zst by the first 512 bytes; None for anything else."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return "tar" if _is_tar_header(head) else None


def _is_tar_header(head: bytes) -> bool:
    """Compare the checksum of a tar header (POSIX 1003.1, ustar; the same in the older v7 form)."""
    if len(head) < HEAD_BYTES or not head[0]:
        return False
    try:
        stated = int(head[_CHECKSUM].strip(b" \0") or b"0", 8)
    except ValueError:
        return False
    blank = head[: _CHECKSUM.start] + b" " * 8 + head[_CHECKSUM.stop : HEAD_BYTES]
    return stated == sum(blank)
