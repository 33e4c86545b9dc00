"""The canonical text of a manifest, written and read image by image: one image's memory, whatever the size.

The form is JSON with sorted keys and no blanks, so the images come first and the class names after them. It
checks the form alone; what the values must be is the manifest's own matter.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

BLOCK_BYTES = 1 << 20
_HEAD = '{"images":['
_DECODER = json.JSONDecoder()


class ByteSource(Protocol):
    """What bytes are read from, in pieces."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


def canonical_chunks(images: Iterable[Mapping[str, Any]], rest: Mapping[str, Any]) -> Iterator[bytes]:
    """Give the text of a manifest in pieces: its images, and its other keys, all of which sort after."""
    assert all(key > "images" for key in rest)
    pieces, size = [_HEAD.encode()], len(_HEAD)
    for number, image in enumerate(images):
        piece = (b"," if number else b"") + _json(image)
        pieces.append(piece)
        size += len(piece)
        if size >= BLOCK_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    pieces.append(b"]," + _json(rest)[1:])
    yield b"".join(pieces)


class ManifestText:
    """A canonical text that is read once: first its images, then `rest`, its other keys."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at = "", 0
        self._read_bytes = BLOCK_BYTES
        self.rest: dict[str, Any] = {}

    def images(self) -> Iterator[dict[str, Any]]:
        """Give the images in order; afterwards `rest` is there. Raises ValueError for another form."""
        self._take(_HEAD)
        if not self._next_is("]"):
            yield self._item()
            while self._next_is(","):
                self._take(",")
                yield self._item()
        self._take("],")
        tail = "{" + self._text[self._at :] + self._decode.decode(self._read_all(), final=True)
        self._text = ""
        self.rest = json.loads(tail)
        if "images" in self.rest:
            raise ValueError("there are images twice")

    def _item(self) -> dict[str, Any]:
        while True:
            try:
                item, self._at = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                # Cut by the end of what is read so far; twice as much each time, so that a huge one is not
                # read over and over.
                if not self._more():
                    raise
                continue
            self._read_bytes = BLOCK_BYTES
            if not isinstance(item, dict):
                raise ValueError("an image is no object")
            return item

    def _more(self) -> bool:
        block = self._source.read(self._read_bytes)
        self._read_bytes *= 2
        self._text = self._text[self._at :] + self._decode.decode(block, final=not block)
        self._at = 0
        return bool(block)

    def _read_all(self) -> bytes:
        blocks = []
        while block := self._source.read(BLOCK_BYTES):
            blocks.append(block)
        return b"".join(blocks)

    def _next_is(self, mark: str) -> bool:
        while len(self._text) - self._at < len(mark) and self._more():
            pass
        return self._text.startswith(mark, self._at)

    def _take(self, mark: str) -> None:
        if not self._next_is(mark):
            raise ValueError(f"expected {mark!r}")
        self._at += len(mark)


def outlines(image: Mapping[str, Any]) -> Sequence[Any]:
    """Return the outline of each row of an image as it is read, None where the row is a box."""
    found: Sequence[Any] = image.get("polygons") or [None] * len(image["rows"])
    return found


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
