"""One pass over an archive: pictures go to content-addressed files, texts into memory, the rest is named.

It sorts files by kind and decides nothing about folders, classes or labels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from worker.ingest import names
from worker.ingest.archive import Item, items, naming_damage
from worker.ingest.limits import Limits
from worker.ingest.report import Report

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredImage:
    """A picture's bytes, kept under their SHA-256."""

    sha256: str
    size_bytes: int


@dataclass
class Contents:
    """What an archive holds, by cleaned name."""

    images: dict[str, StoredImage] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    yamls: dict[str, bytes] = field(default_factory=dict)
    jsons: dict[str, bytes] = field(default_factory=dict)
    xmls: dict[str, bytes] = field(default_factory=dict)


def blob_path(root: Path, sha256: str) -> Path:
    """Return where a content-addressed file lies below `root`."""
    return root / sha256[:2] / sha256


def collect(archive: Path, images_root: Path, limits: Limits, report: Report) -> Contents:
    """Read the whole archive once; raise RefusedError for what must not be read on.

    Pictures are written below `images_root` by content, so no name of the archive ever reaches the disk.
    """
    contents = Contents()
    budget = _Budget(limits, report)
    with naming_damage(report) as place:
        for item in items(archive, limits, report):
            place.name = item.name
            if names.is_rubbish(item.name):
                continue
            kind = names.kind(item.name)
            if kind == "image":
                contents.images[item.name] = _store(item, images_root, budget)
            elif kind in ("text", "yaml", "xml"):
                content = _read_text(item, limits, budget, report)
                if content is not None:
                    _texts_of(contents, kind)[item.name] = content
            elif kind == "json":
                content = _read_annotations(item, budget, report)
                if content is not None:
                    contents.jsons[item.name] = content
            else:
                _ignore(item.name, kind, report)
    if not contents.images:
        raise report.refuse(
            "NO_IMAGES",
            "the archive holds no pictures",
            fix="put pictures (jpg, png, bmp, webp, tif) under images/train and images/val",
        )
    return contents


def _texts_of(contents: Contents, kind: names.Kind) -> dict[str, bytes]:
    return {"text": contents.texts, "yaml": contents.yamls, "xml": contents.xmls}[kind]


class _Budget:
    """Counts what really comes out of the archive, whatever its directory declared."""

    def __init__(self, limits: Limits, report: Report) -> None:
        self._total_left = limits.max_total_bytes
        self._texts_left = limits.max_texts_bytes
        self.annotations_left = limits.max_annotations_bytes
        self._report = report

    def take(self, num_bytes: int, name: str) -> None:
        self._total_left -= num_bytes
        if self._total_left < 0:
            raise self._report.refuse(
                "ARCHIVE_TOO_LARGE", "the archive inflates to too many bytes", file=name
            )

    def take_text(self, num_bytes: int, name: str) -> None:
        self._texts_left -= num_bytes
        if self._texts_left < 0:
            raise self._report.refuse(
                "ARCHIVE_TOO_LARGE", "the label files are too large altogether", file=name
            )


def _store(item: Item, root: Path, budget: _Budget) -> StoredImage:
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / ".incoming"
    digest = hashlib.sha256()
    size = 0
    with item.open() as source, temporary.open("wb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            budget.take(len(chunk), item.name)
            digest.update(chunk)
            target.write(chunk)
            size += len(chunk)
    path = blob_path(root, digest.hexdigest())
    path.parent.mkdir(exist_ok=True)
    temporary.replace(path)
    return StoredImage(digest.hexdigest(), size)


def _read_text(item: Item, limits: Limits, budget: _Budget, report: Report) -> bytes | None:
    with item.open() as source:
        content = _read_at_most(source, limits.max_text_bytes + 1)
    budget.take(len(content), item.name)
    if len(content) > limits.max_text_bytes:
        report.add(
            "warning",
            "TEXT_TOO_LARGE",
            f"the file is over {limits.max_text_bytes} bytes and was ignored",
            file=item.name,
            value=item.size,
        )
        return None
    budget.take_text(len(content), item.name)
    return content


def _read_annotations(item: Item, budget: _Budget, report: Report) -> bytes | None:
    """Return a JSON file's bytes, or None with an entry once all of them together are over the limit."""
    left = budget.annotations_left
    with item.open() as source:
        content = _read_at_most(source, left + 1)
    budget.take(len(content), item.name)
    if len(content) > left:
        report.add(
            "warning",
            "ANNOTATIONS_TOO_LARGE",
            f"the JSON files are over the limit altogether ({left} bytes were left); this one was ignored",
            file=item.name,
            value=item.size,
            fix="leave out the files that are not needed, or divide the dataset",
        )
        return None
    budget.annotations_left -= len(content)
    return content


def _read_at_most(source: IO[bytes], limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while left > 0 and (chunk := source.read(min(left, _CHUNK_BYTES))):
        parts.append(chunk)
        left -= len(chunk)
    return b"".join(parts)


def _ignore(name: str, kind: names.Kind, report: Report) -> None:
    if kind == "archive":
        report.add(
            "warning",
            "NESTED_ARCHIVE",
            "an archive inside the archive is not opened; it was ignored",
            file=name,
            fix="unpack it and pack the files themselves",
        )
    elif kind == "code":
        report.add(
            "warning",
            "FILE_IGNORED",
            "programs, caches and pickles are never read; the file was ignored",
            file=name,
        )
    else:
        report.add(
            "info",
            "FILE_IGNORED",
            "neither a picture nor a description of pictures; the file was ignored",
            file=name,
        )
