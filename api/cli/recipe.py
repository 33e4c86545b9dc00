"""Reads a job.yaml: what is to be trained on what, and what must come of it.

Whatever is wrong is told with file, line, key and value, and as much as possible at once. What a
configuration may hold only the service knows; `placed` finds the lines of what it refuses. It must not know
HTTP.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from api.cli.gates import GateError, NoWorse, Requirement, parse_no_worse, parse_requirement
from yolocore.spec.yamlsafe import Mapping as YamlMapping
from yolocore.spec.yamlsafe import Node, Scalar, Sequence, YamlError, load_yaml, shorten

KEYS = (
    "dataset",
    "architecture",
    "weights",
    "config",
    "require",
    "no_worse_than",
    "name",
    "tags",
    "queue",
    "priority",
    "max_runtime_s",
)
_G = TypeVar("_G")
_PASSED_ON = ("name", "tags", "queue", "priority", "max_runtime_s")


class RecipeError(Exception):
    """A job.yaml that cannot be used; `problems` are dicts with file, line, column, message and value."""

    def __init__(self, path: Path, problems: list[dict[str, Any]]) -> None:
        self.problems = problems
        super().__init__(f"{path} cannot be used: {len(problems)} problem(s)")


@dataclass(frozen=True)
class Recipe:
    """What a job.yaml says; `extras` are the keys of a submission that are passed on as they are."""

    path: Path
    dataset: str
    architecture: str
    weights: str | None
    config: dict[str, Any]
    require: tuple[Requirement, ...]
    no_worse_than: tuple[NoWorse, ...]
    extras: dict[str, Any]
    root: YamlMapping

    def beside(self, name: str) -> Path:
        """Return the path of a file that the recipe names: relative ones start at the recipe's folder."""
        return self.path.parent / name

    def problem(self, key: str, message: str, value: str | None = None) -> dict[str, Any]:
        """Return a problem with a key of the recipe, in its line."""
        node = self.root.items.get(key, self.root)
        return _problem(self.path, node, key, message, value)


def read_recipe(path: Path) -> Recipe:
    """Read a job.yaml (or JSON, which is YAML); raises RecipeError."""
    try:
        root = load_yaml(path.read_bytes())
    except OSError as error:
        raise RecipeError(path, [{"file": str(path), "message": error.strerror or str(error)}]) from None
    except YamlError as error:
        raise RecipeError(path, [{"file": str(path), **item.as_dict()} for item in error.problems]) from None
    reader = _Reader(path)
    found = reader.read(root)
    if found is None or reader.problems:
        raise RecipeError(path, sorted(reader.problems, key=lambda item: int(item["line"])))
    return found


class _Reader:
    """Collects what is wrong while it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[dict[str, Any]] = []

    def read(self, root: Node) -> Recipe | None:
        """Return what the tree says; None where that is nothing."""
        if not isinstance(root, YamlMapping):
            self._wrong(root, "", "a job is a mapping with the keys dataset and architecture")
            return None
        self._keys(root)
        return Recipe(
            path=self.path,
            dataset=self._text(root, "dataset", needed=True) or "",
            architecture=self._text(root, "architecture", needed=True) or "",
            weights=self._text(root, "weights"),
            config=self._config(root),
            require=self._gates(root, "require", parse_requirement),
            no_worse_than=self._gates(root, "no_worse_than", parse_no_worse),
            extras=self._extras(root),
            root=root,
        )

    def _wrong(self, node: Node, key: str, message: str) -> None:
        value = shorten(str(node.value)) if isinstance(node, Scalar) else None
        self.problems.append(_problem(self.path, node, key, message, value))

    def _keys(self, root: YamlMapping) -> None:
        for key in root.items:
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, n=1)
                hint = f"is {near[0]!r} meant?" if near else f"there are: {', '.join(KEYS)}"
                self._wrong(root.keys[key], "", f"there is no key of this name; {hint}")

    def _text(self, root: YamlMapping, key: str, *, needed: bool = False) -> str | None:
        node = root.items.get(key)
        if node is None:
            if needed:
                self._wrong(root, key, "is missing")
            return None
        if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value.strip():
            self._wrong(node, key, "must be a text; put a number into quotes")
            return None
        return node.value

    def _config(self, root: YamlMapping) -> dict[str, Any]:
        node = root.items.get("config")
        if node is None:
            return {}
        if not isinstance(node, YamlMapping):
            self._wrong(node, "config", "must be a mapping, such as {epochs: 50}")
            return {}
        found: dict[str, Any] = plain(node)
        return found

    def _gates(self, root: YamlMapping, key: str, parse: Callable[[str], _G]) -> tuple[_G, ...]:
        node = root.items.get(key)
        if node is None:
            return ()
        found: list[_G] = []
        for number, item in enumerate(node.items if isinstance(node, Sequence) else (node,)):
            place = f"{key}[{number}]" if isinstance(node, Sequence) else key
            if not isinstance(item, Scalar) or not isinstance(item.value, str):
                self._wrong(item, place, "must be a text, or a list of texts")
                continue
            try:
                found.append(parse(item.value))
            except GateError as error:
                self._wrong(item, place, str(error))
        return tuple(found)

    def _extras(self, root: YamlMapping) -> dict[str, Any]:
        found = {key: plain(root.items[key]) for key in _PASSED_ON if key in root.items}
        for key in ("priority", "max_runtime_s"):
            if key in found and (isinstance(found[key], bool) or not isinstance(found[key], int)):
                self._wrong(root.items[key], key, "must be a whole number")
        for key in ("name", "queue"):
            self._text(root, key)
        if "tags" in found:
            self._tags(root.items["tags"])
        return {key: value for key, value in found.items() if value is not None}

    def _tags(self, node: Node) -> None:
        if not isinstance(node, Sequence):
            self._wrong(node, "tags", "must be a list of texts, such as [main]")
            return
        for number, item in enumerate(node.items):
            if not isinstance(item, Scalar) or not isinstance(item.value, str):
                self._wrong(item, f"tags[{number}]", "must be a text; put a number into quotes")


def _problem(path: Path, node: Node, key: str, message: str, value: str | None) -> dict[str, Any]:
    place = {"file": str(path), "line": node.line, "column": node.column}
    told = f"{key}: {message}" if key else message
    return place | {"key": key, "message": told} | ({"value": value} if value is not None else {})


def plain(node: Node) -> Any:
    """Return the values of a tree without their places."""
    if isinstance(node, YamlMapping):
        return {key: plain(item) for key, item in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def placed(recipe: Recipe, problems: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the service's problems with a submission in the lines of the recipe that they are about.

    A JSON pointer such as `/config/hyp/lr0` is followed as far as the recipe goes; what the recipe does not
    hold (a `--set`, a default) keeps its pointer alone.
    """
    return [_placed(recipe, problem) for problem in problems]


def _placed(recipe: Recipe, problem: Mapping[str, Any]) -> dict[str, Any]:
    pointer = str(problem.get("pointer") or "")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    if not parts or parts[0] not in recipe.root.items or problem.get("line") is not None:
        return dict(problem)
    node: Node = recipe.root
    for part in parts:
        below = _below(node, part)
        if below is None:
            break
        node = below
    told = _problem(recipe.path, node, ".".join(parts), str(problem.get("message") or ""), None)
    return dict(problem) | told


def _below(node: Node, part: str) -> Node | None:
    if isinstance(node, YamlMapping):
        return node.items.get(part)
    if isinstance(node, Sequence) and part.isdigit() and int(part) < len(node.items):
        return node.items[int(part)]
    return None
