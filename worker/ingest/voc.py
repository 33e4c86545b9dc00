"""Reads one Pascal VOC annotation: its objects' names and boxes, each mistake with its line.

XML is read event by event with bounds; a document type or an entity ends the reading, so nothing ever
expands. The file's own `filename` and `path` are only remembered, never opened.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal
from xml.parsers import expat

MAX_NAME_CHARS = 256
MAX_DEPTH = 16
MAX_LEAF_CHARS = 4096
MAX_OBJECTS = 100_000
# Encodings a declaration may name besides UTF-8 and UTF-16; each is read by Python before expat sees it.
_ENCODINGS = frozenset(
    {"iso-8859-1", "latin-1", "windows-1252", "cp1252", "us-ascii", "ascii", "gbk", "gb2312", "gb18030"}
    | {"big5", "shift_jis", "euc-kr", "euc-jp", "windows-1251", "utf-8", "utf8"}
)
_DECLARED = re.compile(rb"""^<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_ROOT = "annotation"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class VocObject:
    """One object as written: name, edges in pixels from 1 (both ends belong to the box), and its line."""

    name: str
    box: tuple[float, float, float, float]
    line: int
    difficult: bool = False


@dataclass(slots=True)
class VocProblem:
    """What is wrong at a line (0 = the whole file); an error makes the dataset invalid."""

    severity: Literal["error", "warning"]
    code: str
    message: str
    line: int = 0
    value: str = ""


@dataclass(slots=True)
class VocFile:
    """One annotation file; `is_voc` tells whether its root element is the one of VOC."""

    is_voc: bool = False
    filename: str = ""
    width: float = 0
    height: float = 0
    objects: list[VocObject] = field(default_factory=list)
    problems: list[VocProblem] = field(default_factory=list)


class _StopError(Exception):
    """The reading ends; the problem is already noted."""


def parse_voc(content: bytes) -> VocFile:
    """Read one annotation; every problem is among the result's, and no input raises."""
    reader = _Reader()
    text = _decode(content, reader.file)
    if text is None:
        return reader.file
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    reader.parser = parser
    try:
        parser.Parse(text.encode("utf-8"), True)
    except _StopError:
        pass
    except expat.ExpatError as error:
        reader.note("error", "XML_SYNTAX", f"not valid XML: {expat.ErrorString(error.code)}", error.lineno)
    return reader.file


def _decode(content: bytes, file: VocFile) -> str | None:
    """Return the text, whatever its declaration says of bytes; None, with a problem, if unreadable."""
    declared = _DECLARED.match(content.lstrip()[:400])
    encoding = declared.group(1).decode("ascii").lower() if declared else "utf-8"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif encoding in ("utf-8", "utf8") or encoding not in _ENCODINGS:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
        text.encode("utf-8")
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        file.is_voc = b"<annotation" in content[:4096]
        line = content.count(b"\n", 0, start) + 1
        message = f"the file is not {encoding.removesuffix('-sig').upper()} text"
        file.problems.append(VocProblem("error", "XML_ENCODING", message, line, f"byte {start}"))
        return None
    return text


class _Reader:
    """Takes expat's events, keeping the path of open elements and the text of the innermost."""

    def __init__(self) -> None:
        self.file = VocFile()
        self.parser: expat.XMLParserType | None = None
        self._path: list[str] = []
        self._text: list[str] = []
        self._chars = 0
        self._line = 0
        self._name: str | None = None
        self._sides: dict[str, str] = {}
        self._difficult = False

    def note(
        self, severity: Literal["error", "warning"], code: str, message: str, line: int, value: str = ""
    ) -> None:
        """Remember a problem."""
        self.file.problems.append(VocProblem(severity, code, message, line, value))

    def refuse(self, *_: object) -> None:
        """Stop at a document type or an entity declaration."""
        text = "the file declares a document type or entities; such XML is not read"
        self.note("error", "XML_NOT_SAFE", text, self._now())
        raise _StopError

    def start(self, name: str, _: dict[str, str]) -> None:
        """Open an element."""
        if not self._path:
            if name != _ROOT:
                raise _StopError
            self.file.is_voc = True
        self._path.append(name)
        self._text, self._chars = [], 0
        if len(self._path) > MAX_DEPTH:
            self.note("error", "XML_TOO_DEEP", f"elements are nested over {MAX_DEPTH} deep", self._now())
            raise _StopError
        if self._path == [_ROOT, "object"]:
            self._line, self._name, self._sides, self._difficult = self._now(), None, {}, False

    def text(self, data: str) -> None:
        """Keep the innermost element's text, up to a bound."""
        self._chars += len(data)
        if self._chars <= MAX_LEAF_CHARS:
            self._text.append(data)

    def end(self, _: str) -> None:
        """Close an element."""
        value, (_, *path) = "".join(self._text).strip(), self._path
        self._text = []
        match path:
            case ["filename"]:
                self.file.filename = value
            case ["size", "width"]:
                self.file.width = _size(value)
            case ["size", "height"]:
                self.file.height = _size(value)
            case ["object", "name"]:
                self._name = value
            case ["object", "difficult"]:
                self._difficult = value not in ("", "0", "Unspecified")
            case ["object", "bndbox", side] if side in _SIDES:
                self._sides[side] = value
            case ["object"]:
                self._object()
        self._path.pop()

    def _object(self) -> None:
        if len(self.file.objects) >= MAX_OBJECTS:
            self.note("error", "XML_TOO_LARGE", f"more than {MAX_OBJECTS} objects", self._line)
            raise _StopError
        if not self._name or len(self._name) > MAX_NAME_CHARS:
            text = f"an object needs a name of 1 to {MAX_NAME_CHARS} characters"
            self.note("error", "LABEL_CLASS", text, self._line, self._name or "")
            return
        if not self._sides:
            text = "the object has no bndbox; dropped"
            self.note("warning", "VOC_NO_BOX", text, self._line, self._name)
            return
        shown = " ".join(self._sides.get(side, "?") for side in _SIDES)
        if len(self._sides) < len(_SIDES):
            text = "a bndbox needs xmin, ymin, xmax and ymax"
            self.note("error", "LABEL_COLUMNS", text, self._line, shown)
            return
        edges = [_float(self._sides[side]) for side in _SIDES]
        if not all(map(math.isfinite, edges)):
            text = "a bndbox holds plain decimal numbers of pixels"
            self.note("error", "LABEL_NOT_A_NUMBER", text, self._line, shown)
            return
        self.file.objects.append(
            VocObject(self._name, self._edges(edges, shown), self._line, self._difficult)
        )

    def _edges(self, edges: list[float], shown: str) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = edges
        if x1 > x2 or y1 > y2:
            text = "the box's corners are swapped; they were put in order"
            self.note("warning", "VOC_SWAPPED", text, self._line, shown)
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)

    def _now(self) -> int:
        return self.parser.CurrentLineNumber if self.parser is not None else 0


def _float(text: str) -> float:
    """Return a plain decimal number; NaN for anything else that float() would take or refuse."""
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _size(text: str) -> float:
    value = _float(text)
    return value if math.isfinite(value) and value > 0 else 0.0
