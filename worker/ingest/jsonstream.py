"""Reads a large JSON object item by item, so that memory follows what is kept, not what is written.

It bounds depth, tells where a text stops being JSON, and knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_BLANKS = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


@dataclass
class JsonError(Exception):
    """Why a text is not the JSON that was hoped for, and on which line (from 1; 0 = the whole text)."""

    code: str
    message: str
    line: int = 0


def decode_json(content: bytes) -> str:
    """Return the text of JSON bytes in UTF-8, UTF-16 or UTF-32, without its byte order mark.

    Raises JsonError for bytes that are none of these.
    """
    try:
        return content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise JsonError("JSON_ENCODING", "the file is not UTF-8 text", line) from error


def read_lists(text: str, takers: Mapping[str, Callable[[object], None]]) -> set[str]:
    """Hand the items of the named top-level lists to their takers, in the text's order; skip other keys.

    Returns the named keys whose value was a list. NaN and infinities are passed on as floats, as Python
    reads them. Raises JsonError for a syntax error, nesting beyond the interpreter's bound, or no room.
    """
    try:
        return _Reader(text, takers).read()
    except RecursionError as error:
        raise JsonError("JSON_TOO_DEEP", "lists or objects are nested too deeply") from error
    except MemoryError as error:
        raise JsonError("ANNOTATIONS_TOO_LARGE", "reading the file needs too much memory") from error
    except json.JSONDecodeError as error:
        raise JsonError("JSON_SYNTAX", f"not valid JSON: {error.msg}", error.lineno) from error
    except ValueError as error:  # a whole number of thousands of digits
        raise JsonError("JSON_SYNTAX", "not usable JSON: a number is too long") from error


class _Reader:
    """One position in one text."""

    def __init__(self, text: str, takers: Mapping[str, Callable[[object], None]]) -> None:
        self._text = text
        self._takers = takers
        self._at = 0

    def read(self) -> set[str]:
        found: set[str] = set()
        self._take("{")
        if not self._next_is("}"):
            while True:
                self._skip_blanks()
                key = self._value()
                if not isinstance(key, str):
                    raise self._syntax("a key is a text")
                self._take(":")
                if key in self._takers and self._next_is("[", consume=False):
                    self._items(self._takers[key])
                    found.add(key)
                else:
                    self._value()
                if not self._more("}"):
                    break
        self._skip_blanks()
        if self._at != len(self._text):
            raise self._syntax("there is more after the end")
        return found

    def _items(self, take: Callable[[object], None]) -> None:
        self._take("[")
        if self._next_is("]"):
            return
        while True:
            take(self._value())
            if not self._more("]"):
                return

    def _more(self, end: str) -> bool:
        if self._next_is(","):
            return True
        self._take(end)
        return False

    def _value(self) -> object:
        self._skip_blanks()
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def _next_is(self, mark: str, *, consume: bool = True) -> bool:
        self._skip_blanks()
        found = self._text.startswith(mark, self._at)
        if found and consume:
            self._at += 1
        return found

    def _take(self, mark: str) -> None:
        if not self._next_is(mark):
            raise self._syntax(f"expected {mark!r}")

    def _skip_blanks(self) -> None:
        blanks = _BLANKS.match(self._text, self._at)
        assert blanks is not None
        self._at = blanks.end()

    def _syntax(self, message: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(message, self._text, self._at)
