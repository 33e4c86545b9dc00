"""The bounded YAML reader: values, places, and everything it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolocore.spec.yamlsafe import Mapping, Scalar, Sequence, YamlError, load_yaml, scalar_value, shorten


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("010", 10),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("None", "None"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("1e999", "1e999"),
        ("9" * 19, 1e19),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert scalar_value(text) == value
    assert type(scalar_value(text)) is type(value)


def test_places_are_kept() -> None:
    root = load_yaml("a: 1\nb:\n  - [x, 'y']\n")
    assert isinstance(root, Mapping)
    assert root.items["a"] == Scalar(1, 1, 4)
    assert root.keys["b"] == Scalar("b", 2, 1)
    rows = root.items["b"]
    assert isinstance(rows, Sequence)
    inner = rows.items[0]
    assert isinstance(inner, Sequence)
    assert (inner.line, inner.column) == (3, 5)
    assert inner.items[1] == Scalar("y", 3, 9)


def test_quoted_numbers_stay_text_and_aliases_resolve() -> None:
    root = load_yaml("a: &n ['3']\nb: *n\n")
    assert isinstance(root, Mapping)
    assert root.items["a"] == root.items["b"]
    shared = root.items["b"]
    assert isinstance(shared, Sequence)
    assert shared.items[0] == Scalar("3", 1, 8)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "YAML_EMPTY", None),
        ("# only a comment\n", "YAML_EMPTY", None),
        ("a: 1\n---\nb: 2\n", "YAML_DOCUMENTS", 2),
        ("a: 1\nb: 2\na: 3\n", "YAML_DUPLICATE_KEY", 3),
        ("a: !!python/object/apply:os.system ['true']\n", "YAML_TAG", 1),
        ("a: !!int 3\n", "YAML_TAG", 1),
        ("a: *nothing\n", "YAML_ALIAS", 1),
        ("a: &a [*a]\n", "YAML_ALIAS", 1),
        ("a: [1, 2\nb: 3\n", "YAML_SYNTAX", 2),
        ("\ta: 1\n", "YAML_SYNTAX", 1),
        ("? [1, 2]\n: 3\n", "YAML_KEY", 1),
        ("1: 2\n", "YAML_KEY", 1),
        ("[" * 40 + "]" * 40, "YAML_TOO_DEEP", 1),
        ("- 1\n" * 30_000, "YAML_TOO_LARGE", None),
        (BOMB, "YAML_TOO_LARGE", None),
        ("a: \x00\n", "NOT_TEXT", 1),
        ("a: 1\nb: \ud800\n", "NOT_TEXT", 2),
        ("a" * 300_000, "YAML_TOO_LARGE", None),
    ],
)
def test_refusals_have_a_code_and_a_line(text: str, code: str, line: int | None) -> None:
    with pytest.raises(YamlError) as caught:
        load_yaml(text)
    assert caught.value.code == code
    problem = caught.value.problems[0]
    assert problem.code == code
    if line is not None:
        assert problem.line == line


@given(st.text(max_size=200) | st.text(alphabet="[]{}:,-&*!'\"\n ab1", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        node = load_yaml(text)
    except YamlError as error:
        assert error.problems
    else:
        assert node.size >= 1


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        load_yaml(data)
    except YamlError as error:
        assert error.problems


def test_shown_values_are_short_and_printable() -> None:
    assert shorten("a\x00b\n") == "a?b?"
    assert len(shorten("x" * 1000)) == 80
    assert shorten(3) == "3"
