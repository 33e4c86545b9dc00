"""Names of archive entries: which are safe, which are rubbish, and what each file is by its suffix.

Pure functions of strings; nothing is ever written under such a name, they are refused all the same.
"""

from __future__ import annotations

import re
from typing import Literal

from worker.ingest.limits import Limits

Kind = Literal["image", "text", "yaml", "archive", "code", "json", "xml", "other"]

IMAGE_SUFFIXES = frozenset({"bmp", "gif", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"})
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    "txt": "text",
    "yaml": "yaml",
    "yml": "yaml",
    **dict.fromkeys(("zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar", "jar"), "archive"),
    **dict.fromkeys(
        ("cache", "npy", "npz", "pkl", "pickle", "pt", "pth", "py", "pyc", "so", "sh", "exe", "dll", "bat"),
        "code",
    ),
    "json": "json",
    "xml": "xml",
}
_DRIVE = re.compile(r"^[A-Za-z]:")
_RUBBISH = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


def unsafe_reason(raw: str, limits: Limits) -> str | None:
    """Tell why an entry's name is refused, or return None for a safe one."""
    path = raw.replace("\\", "/")
    parts = path.split("/")
    if not raw:
        return "the name is empty"
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in raw):
        return "the name contains a control character"
    if path.startswith("/") or _DRIVE.match(path):
        return "the path is absolute"
    if ".." in parts:
        return "the path leaves its folder with '..'"
    if len(encoded) > limits.max_path_bytes or len(parts) > limits.max_path_depth:
        return f"the path is too long or too deep ({len(encoded)} bytes, {len(parts)} levels)"
    if any(len(part.encode("utf-8")) > 255 for part in parts):
        return "a part of the path is longer than 255 bytes"
    return None


def clean(raw: str) -> str:
    """Return a safe name with forward slashes and without empty or '.' parts."""
    return "/".join(part for part in raw.replace("\\", "/").split("/") if part not in ("", "."))


def is_rubbish(name: str) -> bool:
    """Tell whether a file is what desktop systems leave behind (resource forks, folder settings)."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1].lower() in _RUBBISH


def suffix(name: str) -> str:
    """Return the lower-case suffix without its dot, or an empty text."""
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[-1].lower() if "." in base else ""


def kind(name: str) -> Kind:
    """Tell what a file is taken for."""
    return _KINDS.get(suffix(name), "other")


def stem_path(name: str) -> str:
    """Return the path without its suffix."""
    head, _, base = name.rpartition("/")
    base = base.rsplit(".", 1)[0] if "." in base else base
    return f"{head}/{base}" if head else base


def label_path(image: str) -> str:
    """Return an image's label file: the last `images` folder becomes `labels`, the suffix `.txt`."""
    parts = stem_path(image).split("/")
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return "/".join(parts) + ".txt"
