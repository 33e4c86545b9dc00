"""Reads a large JSON object item by item, so that memory follows what is kept, not what is written.

It bounds depth, tells where a text stops being JSON, and knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_DEPTH = 64
# Lists of empty lists take over twenty times the room of their text: an item is measured before it is built.
MAX_ITEM_CHARS = 4 << 20
_BLANKS = re.compile(r"[ \t\n\r]*")
_MARK = re.compile(r'[\[\]{}"]')
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
    reads them; values of other keys are passed over unbuilt. Raises JsonError for a syntax error, nesting
    over MAX_DEPTH, an item over MAX_ITEM_CHARS, or no room.
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
                    self._skip()
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

    def _skip(self) -> None:
        self._skip_blanks()
        if self._text[self._at : self._at + 1] in ("[", "{"):
            self._at = self._end_of_value(len(self._text))
        else:
            self._value()

    def _value(self) -> object:
        self._skip_blanks()
        if self._text[self._at : self._at + 1] in ("[", "{"):
            self._end_of_value(MAX_ITEM_CHARS)
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def _end_of_value(self, max_chars: int) -> int:
        """Return where the list or object that begins here ends; refuse one too deep or too long."""
        at, depth = self._at, 0
        while (mark := _MARK.search(self._text, at)) is not None:
            at = mark.end()
            if mark[0] == '"':
                _, at = _DECODER.raw_decode(self._text, at - 1)
            else:
                depth += 1 if mark[0] in "[{" else -1
            if depth > MAX_DEPTH:
                raise self._refused("JSON_TOO_DEEP", f"lists or objects are nested over {MAX_DEPTH} deep", at)
            if at - self._at > max_chars:
                text = f"one item of a list has over {max_chars} characters"
                raise self._refused("ANNOTATIONS_TOO_LARGE", text, at)
            if depth == 0:
                return at
        raise self._syntax("the list or object does not end")

    def _refused(self, code: str, message: str, at: int) -> JsonError:
        return JsonError(code, message, self._text.count("\n", 0, at) + 1)

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
