"""What makes a file a tar archive, for the upload that glances at it and the ingest that reads it: one rule,
so that neither takes what the other refuses. Reads a header, opens no file.
"""

from __future__ import annotations

HEAD_BYTES = 512
_CHECKSUM = slice(148, 156)


def is_tar_header(head: bytes) -> bool:
    """Tell whether a file that begins so is a tar: its first header states its own checksum.

    (POSIX 1003.1, ustar; the older v7 form, which has no magic, has it too. Old programs summed signed
    bytes.)
    """
    if len(head) < HEAD_BYTES or not head[0]:
        return False
    try:
        stated = int(head[_CHECKSUM].strip(b" \0") or b"0", 8)
    except ValueError:
        return False
    blank = head[: _CHECKSUM.start] + b" " * 8 + head[_CHECKSUM.stop : HEAD_BYTES]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blank)
    return stated in (sum(blank), signed)
