"""Says of usable pictures what their owner may not expect: how they are read, and names that lie.

It sees names and what was found in the bytes; it refuses nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from worker.ingest.images import ImageFacts
from worker.ingest.report import Report
from yolocore.spec.dataset import Manifest

_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "PNG": {".png"},
    "BMP": {".bmp", ".dib"},
    "GIF": {".gif"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff", ".dng"},
}
_FIXES = {
    "IMAGE_CMYK": "save the picture as RGB",
    "IMAGE_ROTATED": "check a few pictures with their boxes",
}


def report_remarks(manifest: Manifest, facts: Mapping[str, ImageFacts], report: Report) -> None:
    """Add an info for each remark on a picture, and for each name whose suffix is of another format."""
    for image in manifest.images:
        fact = facts[image.sha256]
        for code, message in fact.remarks:
            report.add("info", code, message, file=image.name, fix=_FIXES.get(code))
        suffix = posixpath.splitext(image.name)[1].lower()
        if fact.format in _SUFFIXES and suffix not in _SUFFIXES[fact.format]:
            text = f"the content is {fact.format}, whatever the name says; it is read as that"
            report.add("info", "IMAGE_SUFFIX", text, file=image.name, value=suffix)
