"""Sums in a model YAML: worked out by a grammar, bounded, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolocore.spec.architecture import parse_architecture
from yolocore.spec.arithmetic import MAX_RESULT, SumError, looks_like_sum, work_out
from yolocore.spec.plan import plan_architecture


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64*2", 128),
        ("(128 + 64)//2", 96),
        ("-3+5", 2),
        ("1/4", 0.25),
        ("3*1/3", 1),
        ("7%4", 3),
        ("2*-(1+1)", -4),
        ("--1", 1),
        ("0.1+0.2", 0.3),
    ],
)
def test_sums_are_worked_out(text: str, value: float) -> None:
    assert work_out(text) == value
    assert type(work_out(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    ["", "1+", "9**9", "9**9**9", "1/0", "1//0", "(1", "1)", "()", "1 2", "1e9", "999999999*999999999", "x"]
    + ["(" * 30 + "1" + ")" * 30, "1+" * 40 + "1", "1.2.3", "/" * 30, "-" * 50 + "1"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SumError):
        work_out(text)


@given(st.text(alphabet="0123456789+-*/%(). ", max_size=70))
def test_no_text_does_more_than_give_a_bounded_number(text: str) -> None:
    try:
        value = work_out(text)
    except SumError:
        return
    assert abs(value) <= MAX_RESULT
    assert looks_like_sum(text)


def test_an_argument_may_be_a_sum() -> None:
    text = (
        "nc: 1\nanchors: 1\nbackbone:\n  - [-1, 1, Conv, [8*2, 2+1, 2]]\nhead:\n"
        "  - [[-1], 1, Detect, [nc, anchors]]\n"
    )
    assert plan_architecture(parse_architecture(text)).layers[0].args["c2"] == 16
