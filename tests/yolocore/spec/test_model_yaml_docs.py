"""The page on model YAMLs says what the code does: its example, its words, its limits, every code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from tests.support.shared import ROOT
from yolocore.spec import advice, architecture, arithmetic, plan, strides, words, yamlsafe
from yolocore.spec.studio import study

PAGE = (ROOT / "docs" / "model-yaml.md").read_text(encoding="utf-8")
CODE = re.compile(r"[A-Z]+(_[A-Z]+)+\Z")
NO_CODES = {"YAML_INVALID"}  # the class's own, of which every problem has a narrower one


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def strings(module: Any) -> set[str]:
    """Return every text in a module's source that has the form of a code."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {text for text in texts if CODE.match(text)}


def test_every_code_is_explained_and_no_other() -> None:
    told = first_cells(section("What can be wrong")) + first_cells(section("Warnings"))
    assert len(told) == len(set(told))
    used = set().union(*(strings(module) for module in (yamlsafe, architecture, plan, advice)))
    assert set(told) == used - NO_CODES


def test_every_word_is_listed_with_its_arguments() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| (yes|) ?\| ([a-z ]+) \|$", section("Words"), re.MULTILINE
    )
    kind = {(True, False): "one", (False, True): "inside", (False, False): "in sequence"}
    assert rows == [
        (word.name, word.usage, "yes" if word.scaled else "", kind[word.joins, word.inner])
        for word in words.WORDS.values()
    ]


def test_the_limits_are_those_of_the_code() -> None:
    told = {
        int(number.replace(",", ""))
        for number in re.findall(r"\| ([0-9,]+) \|$", section("Limits"), re.MULTILINE)
    }
    limits = [yamlsafe.MAX_BYTES, yamlsafe.MAX_DEPTH, yamlsafe.MAX_NODES, yamlsafe.MAX_ALIASES]
    limits += [architecture.MAX_ROWS, architecture.MAX_ANCHORS, arithmetic.MAX_CHARS]
    limits += [words.MAX_REPEATS, words.MAX_CLASSES, words.MAX_WIDTH, words.MAX_KERNEL]
    limits += [plan.MAX_LEVELS, plan.MAX_PARAMETERS, plan.MAX_ENTRIES, strides.MAX_SIDE]
    assert told == {*limits, plan.MAX_ACTIVATION_BYTES // 2**30}


def test_the_example_can_be_trained() -> None:
    example = PAGE.split("```\n")[1]
    found = study(example)
    assert (found.plan.strides, found.warnings) == ((4, 8), ())
