"""Reads untrusted YAML into a small tree that remembers where each value stood.

Built on the parser's events instead of a loader, so that size, depth, number of nodes and aliases are bounded
before anything is built, duplicate keys and tags are refused, and every scalar keeps its line and column.
Values are those of the YAML 1.2 core schema (no dates, no `yes`/`no`, no octal surprises). Must not know what
the text describes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from yolocore.errors import CoreError, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_NODES = 20_000
MAX_ALIASES = 100
MAX_SHOWN = 80

Value = str | int | float | bool | None

_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z")
_WORDS: dict[str, Value] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(CoreError):
    """A text that is no acceptable YAML; `problems` holds the one reason."""

    code = "YAML_INVALID"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value; `line` and `column` count from 1."""

    value: Value
    line: int
    column: int
    size: int = 1


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of nodes."""

    items: tuple[Node, ...]
    line: int
    column: int
    size: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Nodes by text key, in the order of the text, with the key's own place."""

    items: dict[str, Node]
    keys: dict[str, Scalar]
    line: int
    column: int
    size: int


Node = Scalar | Sequence | Mapping


def shorten(value: object, limit: int = MAX_SHOWN) -> str:
    """Return a printable form of a value, cut to a length fit for a message."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(char if char.isprintable() else "?" for char in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def scalar_value(text: str) -> Value:
    """Return the value of a plain (unquoted) scalar by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text) and math.isfinite(float(text)):
        return float(text)
    return text


def load_yaml(source: str | bytes, *, max_bytes: int = MAX_BYTES) -> Node:
    """Return the tree of the one document in a YAML text.

    Raises YamlError (code, and a problem with line and column) for text that is too large, too deep, not
    UTF-8, not YAML, empty, or that has several documents, tags, duplicate or non-text keys.
    """
    text = _decode(source, max_bytes)
    parser = _PARSER(text)
    try:
        return _Builder(parser).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise _error(
            "YAML_SYNTAX", f"not valid YAML: {error.problem or error.context}", line, column
        ) from None
    except yaml.YAMLError as error:
        raise _error("YAML_SYNTAX", f"not valid YAML: {shorten(str(error))}") from None
    finally:
        parser.dispose()


def _decode(source: str | bytes, max_bytes: int) -> str:
    """Return the text of a source of acceptable size."""
    data = source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
    if len(data) > max_bytes:
        raise _error("YAML_TOO_LARGE", f"the text has {len(data)} bytes, at most {max_bytes} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error("NOT_TEXT", f"not a UTF-8 text: byte {data[error.start]:#04x}", line) from None
    for match in re.finditer(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
        line = text.count("\n", 0, match.start()) + 1
        raise _error("NOT_TEXT", f"not a text: character {ord(match.group()):#04x}", line)
    return text


def _error(
    code: str, message: str, line: int | None = None, column: int | None = None, value: str | None = None
) -> YamlError:
    problem = Problem(code, message, line=line, column=column, value=value)
    place = f"line {line}, column {column}" if line and column else f"line {line}" if line else None
    return YamlError(message, code=code, place=place, value=value, problems=[problem])


class _Builder:
    """Turns parser events into nodes, within the limits."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._anchors: dict[str, Node] = {}
        self._num_nodes = 0
        self._num_aliases = 0

    def document(self) -> Node:
        """Read the only document of the stream."""
        self._next()
        if self._parser.check_event(yaml.StreamEndEvent):
            raise _error("YAML_EMPTY", "the text is empty")
        self._next()
        node = self._node(self._next(), 0)
        self._next()
        if not self._parser.check_event(yaml.StreamEndEvent):
            event = self._next()
            raise self._at(event, "YAML_DOCUMENTS", "a second document begins here; one is read")
        return node

    def _next(self) -> Any:
        return self._parser.get_event()

    def _at(self, event: Any, code: str, message: str, value: str | None = None) -> YamlError:
        return _error(code, message, event.start_mark.line + 1, event.start_mark.column + 1, value)

    def _count(self, event: Any, size: int) -> None:
        self._num_nodes += size
        if self._num_nodes > MAX_NODES:
            raise self._at(event, "YAML_TOO_LARGE", f"more than {MAX_NODES} values")

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(event, 1)
        if depth > MAX_DEPTH:
            raise self._at(event, "YAML_TOO_DEEP", f"nested more than {MAX_DEPTH} levels deep")
        if event.tag is not None:
            raise self._at(event, "YAML_TAG", "tags are not accepted", shorten(event.tag))
        node = self._build(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _build(self, event: Any, depth: int) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            value = scalar_value(event.value) if event.implicit[0] else event.value
            return Scalar(value, line, column)
        if isinstance(event, yaml.SequenceStartEvent):
            items = tuple(self._until(yaml.SequenceEndEvent, depth + 1))
            return Sequence(items, line, column, 1 + sum(item.size for item in items))
        return self._mapping(line, column, depth)

    def _mapping(self, line: int, column: int, depth: int) -> Mapping:
        items: dict[str, Node] = {}
        keys: dict[str, Scalar] = {}
        nodes = self._until(yaml.MappingEndEvent, depth + 1)
        for key in nodes:
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                shown = shorten(key.value) if isinstance(key, Scalar) else None
                raise _error("YAML_KEY", "a key must be a text", key.line, key.column, shown)
            if key.value in items:
                name = shorten(key.value)
                message = f"the key {name!r} stands here a second time (first in line {keys[key.value].line})"
                raise _error("YAML_DUPLICATE_KEY", message, key.line, key.column, name)
            items[key.value] = next(nodes)
            keys[key.value] = key
        return Mapping(items, keys, line, column, 1 + sum(node.size for node in items.values()))

    def _until(self, end: type[yaml.Event], depth: int) -> Iterator[Node]:
        while not self._parser.check_event(end):
            yield self._node(self._next(), depth)
        self._next()

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise self._at(event, "YAML_ALIAS", f"nothing is named {shorten(event.anchor)!r} yet")
        self._num_aliases += 1
        if self._num_aliases > MAX_ALIASES:
            raise self._at(event, "YAML_ALIAS", f"more than {MAX_ALIASES} aliases")
        self._count(event, node.size)
        return node
