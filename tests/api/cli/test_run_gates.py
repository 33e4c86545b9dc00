"""Requirements: how they are written, and what they say of figures."""

from __future__ import annotations

import pytest

from api.cli.gates import (
    GateError,
    NoWorse,
    Requirement,
    figures_of,
    judge,
    judge_no_worse,
    not_judged,
    parse_no_worse,
    parse_requirement,
)

ROWS = [
    {"epoch": 0, "map50": 0.5, "train": {"box": 0.2}, "val": {"box": 0.3, "obj": float("nan")}},
    {"epoch": 1, "map50": 0.4, "train": {"box": 0.1}, "val": None},
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("map50>=0.70", Requirement("map50", ">=", 0.7)),
        (" map50_95 > .3 ", Requirement("map50_95", ">", 0.3)),
        ("recall<=1", Requirement("recall", "<=", 1.0)),
        ("val_box < 5e-2", Requirement("val_box", "<", 0.05)),
        ("train_cls==0", Requirement("train_cls", "==", 0.0)),
        ("train_obj < 7", Requirement("train_obj", "<", 7.0)),
    ],
)
def test_a_requirement_is_read(text: str, expected: Requirement) -> None:
    assert parse_requirement(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("map50", "such as map50>=0.70"),
        ("map50 => 0.7", "such as"),
        ("map50>=0.7 or so", "such as"),
        ("map5>=0.7", "is 'map50' meant?"),
        ("zzz>=0.7", "there are: map50, "),
        ("map50>=70", "between 0 and 1"),
        ("recall>=-0.1", "between 0 and 1"),
        ("val_box<1e999", "no number"),
        ("map50>=nan", "such as"),
        ("map50>=", "such as"),
        ("", "such as"),
    ],
)
def test_a_requirement_that_means_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(GateError, match=".*") as caught:
        parse_requirement(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("main", NoWorse("main", "fitness", 0.0)),
        ("job_0198-0.02", NoWorse("job_0198", "fitness", 0.02)),
        ("main:map50", NoWorse("main", "map50", 0.0)),
        ("main:map50-0.02", NoWorse("main", "map50", 0.02)),
        ("main:val_box-1", NoWorse("main", "val_box", 1.0)),
        ("release-2", NoWorse("release-2", "fitness", 0.0)),
        ("release-0.5:map50_95-0.01", NoWorse("release-0.5", "map50_95", 0.01)),
        ("branch:main", NoWorse("branch:main", "fitness", 0.0)),
        ("branch:main:recall", NoWorse("branch:main", "recall", 0.0)),
    ],
)
def test_a_comparison_is_read(text: str, expected: NoWorse) -> None:
    assert parse_no_worse(text) == expected


@pytest.mark.parametrize("text", ["", "  ", ":map50", ":recall-0.1"])
def test_a_comparison_with_nothing_is_refused(text: str) -> None:
    with pytest.raises(GateError):
        parse_no_worse(text)


def test_figures_are_those_of_the_best_epoch_and_only_what_was_measured() -> None:
    best = {"epoch": 0, "map50": 0.5, "fitness": 0.2, "recall": None}
    found = figures_of(best, ROWS)
    assert found == {"map50": 0.5, "fitness": 0.2, "train_box": 0.2, "val_box": 0.3}
    assert figures_of({"epoch": 1, "map50": 0.4}, ROWS) == {"map50": 0.4, "train_box": 0.1}
    assert figures_of({"epoch": 7, "map50": 0.4}, []) == {"map50": 0.4}
    assert figures_of(None, ROWS) == {}


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("map50>=0.5", True),
        ("map50>0.5", False),
        ("map50==0.5", True),
        ("map50<=0.5", True),
        ("map50<0.5", False),
        ("recall>=0", False),
    ],
)
def test_a_figure_is_judged_and_a_missing_one_misses(text: str, passed: bool) -> None:
    verdict = judge(parse_requirement(text), {"map50": 0.5})
    assert verdict.passed is passed
    assert ("MISSED" in str(verdict)) is not passed
    assert verdict.metric != "recall" or "was not measured" in str(verdict)


@pytest.mark.parametrize(
    ("text", "found", "other", "passed"),
    [
        ("main:map50", 0.5, 0.5, True),
        ("main:map50", 0.49, 0.5, False),
        ("main:map50-0.02", 0.49, 0.5, True),
        ("main:val_box", 0.2, 0.1, False),
        ("main:val_box", 0.1, 0.2, True),
        ("main:val_box-0.2", 0.2, 0.1, True),
    ],
)
def test_losses_are_the_better_the_smaller(text: str, found: float, other: float, passed: bool) -> None:
    gate = parse_no_worse(text)
    verdict = judge_no_worse(gate, {gate.metric: found}, {gate.metric: other}, "job_1")
    assert verdict.passed is passed and "job_1 has" in verdict.note
    assert "no worse than main" in str(verdict)


def test_what_cannot_be_compared_is_told() -> None:
    gate = parse_no_worse("main:map50")
    alone = judge_no_worse(gate, {"map50": 0.5}, None, None)
    assert alone.passed is None and "not judged" in str(alone) and "'main'" in alone.note
    assert judge_no_worse(gate, {"map50": 0.5}, {}, "job_1").passed is False
    assert judge_no_worse(gate, {}, {"map50": 0.5}, "job_1").passed is False
    ended = not_judged(gate, "the job is failed")
    assert ended.passed is None and ended.as_json()["note"] == "the job is failed"
    assert not_judged(parse_requirement("map50>0.1"), "").bound == 0.1
