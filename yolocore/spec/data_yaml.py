"""The data.yaml people write, in all its forms, read without ever running what is in it.

YOLOv5 executes the `download` key and trusts every path; here the file is only looked at, node by node, and
each mistake is named with its line. It knows nothing of the folders the entries point to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from yolocore.errors import DatasetError, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_ALIASES = 16
MAX_CLASSES = 100_000
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "timestamp")
)


@dataclass(frozen=True)
class DataYaml:
    """A dataset as its author describes it; entries are folders or list files, as written.

    `notes` are things worth telling that did not stop the reading (an ignored `download`, made-up names).
    """

    names: tuple[str, ...]
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()
    path: str = ""
    notes: tuple[Problem, ...] = ()

    def entries(self, split: str) -> tuple[str, ...]:
        """Return the entries of a split by its name."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


def parse_data_yaml(text: str | bytes, *, source: str = "data.yaml") -> DataYaml:
    """Read a data.yaml; raise DatasetError whose `problems` name file, line and value."""
    reader = _Reader(source)
    keys = reader.top_level(_decode(text, source))
    names = reader.names(keys)
    train, val = reader.entries(keys, "train", needed=True), reader.entries(keys, "val", needed=True)
    test = reader.entries(keys, "test", needed=False)
    path = reader.scalar(keys.get("path")) or ""
    if "download" in keys:
        reader.note(
            "DATA_DOWNLOAD_IGNORED", "the key `download` is ignored; nothing is run", keys["download"]
        )
    if reader.problems:
        raise _error(source, reader.problems)
    return DataYaml(names, train, val, test, path, tuple(reader.notes))


@dataclass
class _Reader:
    """Collects what is wrong while the parts are read."""

    source: str
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def top_level(self, text: str) -> dict[str, yaml.Node]:
        """Return the nodes of the top-level keys; raise if the text is not one plain mapping."""
        try:
            _check_shape(text, self.source)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else None
            message = f"not valid YAML: {error.problem or error.context}"
            problem = Problem("YAML_SYNTAX", message, file=self.source, line=line)
            raise _error(self.source, [problem]) from error
        except yaml.YAMLError as error:
            problem = Problem("YAML_SYNTAX", f"not valid YAML: {error}", file=self.source)
            raise _error(self.source, [problem]) from error
        if not isinstance(root, yaml.MappingNode):
            raise _error(
                self.source, [Problem("YAML_NOT_A_MAPPING", "expected `key: value` lines", self.source)]
            )
        keys: dict[str, yaml.Node] = {}
        for key, value in root.value:
            if key.value in keys:
                self.problem("YAML_DUPLICATE_KEY", f"the key `{key.value}` occurs twice", key)
            keys[str(key.value)] = value
        return keys

    def names(self, keys: dict[str, yaml.Node]) -> tuple[str, ...]:
        """Return the class names; check them against `nc`."""
        node, count = keys.get("names"), self._count(keys.get("nc"))
        if node is None:
            if count is None:
                self.problem("DATA_NAMES", "the key `names` is missing", None)
                return ()
            self.note("DATA_NAMES_MADE_UP", f"no `names`: classes are called class0..class{count - 1}", None)
            return tuple(f"class{i}" for i in range(count))
        names = self._mapped_names(node) if isinstance(node, yaml.MappingNode) else self._listed(node)
        if not names:
            self.problem("DATA_NAMES", "`names` needs at least one class", node)
        elif count is not None and count != len(names):
            self.problem("DATA_NC", f"`nc` says {count} classes, `names` has {len(names)}", keys["nc"])
        return names

    def entries(self, keys: dict[str, yaml.Node], key: str, *, needed: bool) -> tuple[str, ...]:
        """Return the entries of a split: a text or a list of texts."""
        node = keys.get(key)
        empty = node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null"))
        if node is None or empty:
            if needed:
                self.problem("DATA_KEY_MISSING", f"the key `{key}` is missing or empty", node)
            return ()
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result = []
        for item in items:
            value = self.scalar(item)
            if not value:
                self.problem("DATA_PATH", f"`{key}` holds paths: texts", item)
            elif any(wild in value for wild in "*?["):
                self.problem("DATA_PATH", f"`{key}`: wildcards are not taken; name the folder", item)
            else:
                result.append(value)
        return tuple(result)

    def scalar(self, node: yaml.Node | None) -> str | None:
        """Return the text of a scalar as written, None for anything else, and for half a character."""
        if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
            return None
        try:
            return joined(node.value).strip()
        except UnicodeError:
            return None

    def problem(self, code: str, message: str, node: yaml.Node | None) -> None:
        """Remember an error at a node."""
        self.problems.append(_at(self.source, code, message, node))

    def note(self, code: str, message: str, node: yaml.Node | None) -> None:
        """Remember something worth telling at a node."""
        self.notes.append(_at(self.source, code, message, node))

    def _count(self, node: yaml.Node | None) -> int | None:
        if node is None:
            return None
        count = _whole(self.scalar(node))
        if count is None or not 1 <= count <= MAX_CLASSES:
            self.problem("DATA_NC", f"`nc` is a whole number from 1 to {MAX_CLASSES}", node)
            return None
        return count

    def _listed(self, node: yaml.Node) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self.problem("DATA_NAMES", "`names` is a list, or a mapping from 0, 1, 2, ...", node)
            return ()
        return tuple(self._name(item) for item in node.value)

    def _mapped_names(self, node: yaml.MappingNode) -> tuple[str, ...]:
        numbered: dict[int, str] = {}
        for key, value in node.value:
            number = _whole(self.scalar(key))
            if number is None or number in numbered:
                self.problem("DATA_NAMES", "the keys of `names` are the numbers 0, 1, 2, ..., once each", key)
                return ()
            numbered[number] = self._name(value)
        missing = next((i for i in range(len(numbered)) if i not in numbered), None)
        if missing is not None:
            self.problem("DATA_NAMES", f"`names` has no entry for class {missing}", node)
            return ()
        return tuple(numbered[i] for i in range(len(numbered)))

    def _name(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip() or len(node.value) > 256:
            self.problem("DATA_NAMES", "a class name is a text of 1 to 256 characters", node)
            return "?"
        try:
            name = joined(node.value).strip()
        except UnicodeError:
            self.problem("DATA_NAMES", "a class name holds half a character (a lone surrogate)", node)
            return "?"
        if node.tag != "tag:yaml.org,2002:str":
            self.note("DATA_NAME_NOT_TEXT", f"the class name {node.value!r} is taken as text", node)
        return name


def _whole(text: str | None) -> int | None:
    """Return a number of digits alone, leading zeros or not; None for any other text, and from 10**9 on."""
    if not text or not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= 9 else None


def joined(text: str) -> str:
    """Return a text whose surrogate pairs, as JSON escapes write them, are one character each.

    Raises UnicodeError where half a pair stands alone: such a text cannot be stored or sent.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _decode(text: str | bytes, source: str) -> str:
    if len(text) > MAX_BYTES:
        raise _error(source, [Problem("YAML_TOO_LARGE", f"larger than {MAX_BYTES // 1024} KiB", source)])
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    encoding = "utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        problem = Problem("YAML_ENCODING", "the file is not UTF-8 text", source, line)
        raise _error(source, [problem]) from error


def _check_shape(text: str, source: str) -> None:
    """Refuse several documents, deep nesting, many aliases and foreign tags before anything is built."""
    depth = aliases = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        documents += isinstance(event, yaml.DocumentStartEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        tag = getattr(event, "tag", None)
        checks = (
            (documents > 1, "YAML_DOCUMENTS", "more than one document"),
            (depth > MAX_DEPTH, "YAML_TOO_DEEP", f"nested deeper than {MAX_DEPTH}"),
            (aliases > MAX_ALIASES, "YAML_ALIASES", f"more than {MAX_ALIASES} aliases"),
            (tag not in (None, "!") and tag not in _PLAIN_TAGS, "YAML_TAG", f"the tag {tag} is not taken"),
        )
        for wrong, code, message in checks:
            if wrong:
                line = event.start_mark.line + 1 if event.start_mark else None
                raise _error(source, [Problem(code, message, source, line)])


def _at(source: str, code: str, message: str, node: yaml.Node | None) -> Problem:
    if node is None:
        return Problem(code, message, file=source)
    value = _sendable(node.value[:120]) if isinstance(node, yaml.ScalarNode) else None
    mark = node.start_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    return Problem(code, message, file=source, line=line, column=column, value=value)


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _error(source: str, problems: list[Problem]) -> DatasetError:
    first = problems[0]
    place = source if first.line is None else f"{source}:{first.line}"
    return DatasetError(
        f"{place}: {first.message}", code=first.code, place=place, value=first.value, problems=problems
    )
