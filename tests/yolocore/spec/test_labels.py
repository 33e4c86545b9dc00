"""The label grammar as a table: what is read, what is refused and how it is named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolocore.spec.labels import (
    LabelProblem,
    LabelRow,
    clip_row,
    detection_rows,
    parse_label_line,
    parse_label_text,
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0.5 0.5 0.2 0.2", (0, 0.5, 0.5, 0.2, 0.2)),
        ("  3\t.5 5e-1 2.5e-1 1 \r", (3, 0.5, 0.5, 0.25, 1.0)),
        ("2.0 1 1 1 1", (2, 1.0, 1.0, 1.0, 1.0)),
        ("0 0 0 0 0", (0, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_a_box_is_read(line: str, expected: tuple[float, ...]) -> None:
    row = parse_label_line(line, num_classes=4)
    assert isinstance(row, LabelRow)
    assert row.numbers == expected
    assert row.polygon is None


def test_a_polygon_gives_its_extent() -> None:
    row = parse_label_line("1 0.2 0.2 0.8 0.3 0.6 0.9")
    assert isinstance(row, LabelRow)
    assert row.polygon == ((0.2, 0.2), (0.8, 0.3), (0.6, 0.9))
    assert row.numbers == pytest.approx((1, 0.5, 0.55, 0.6, 0.7))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("0 0.5 0.5 0.2", "LABEL_COLUMNS"),
        ("0 0.5 0.5 0.2 0.2 0.9", "LABEL_COLUMNS"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.6 0.1", "LABEL_COLUMNS"),
        ("0,0.5,0.5,0.2,0.2", "LABEL_NOT_A_NUMBER"),
        ("0 0,5 0,5 0,2 0,2", "LABEL_NOT_A_NUMBER"),
        ("0 0.5 0.5 0_2 1_0", "LABEL_NOT_A_NUMBER"),
        ("0 0.5 0.5 inf 0.2", "LABEL_NOT_A_NUMBER"),
        ("0 nan 0.5 0.2 0.2", "LABEL_NOT_A_NUMBER"),
        ("0 \uff10.5 0.5 0.2 0.2", "LABEL_NOT_A_NUMBER"),
        ("dog 0.5 0.5 0.2 0.2", "LABEL_NOT_A_NUMBER"),
        ("0.5 0.5 0.5 0.2 0.2", "LABEL_CLASS"),
        ("-1 0.5 0.5 0.2 0.2", "LABEL_CLASS"),
        ("4 0.5 0.5 0.2 0.2", "LABEL_CLASS"),
        ("0 0.5 -0.1 0.2 0.2", "LABEL_NEGATIVE"),
        ("0 1.02 0.5 0.2 0.2", "LABEL_ABOVE_ONE"),
    ],
)
def test_a_bad_row_is_named(line: str, code: str) -> None:
    problem = parse_label_line(line, num_classes=4, line_number=7)
    assert isinstance(problem, LabelProblem)
    assert (problem.code, problem.line, problem.value) == (code, 7, line)
    assert problem.dropped


def test_each_row_is_judged_on_its_own() -> None:
    text = b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\r\n\r\n1 0.1 0.1 0.5 0.1 0.5 0.6\r\n0 2 0.5 0.2 0.2\r\n"
    rows, problems = parse_label_text(text)
    assert [row.polygon is None for row in rows] == [True, False]
    assert rows[0].numbers == (0, 0.5, 0.5, 0.2, 0.2)
    assert [(problem.code, problem.line) for problem in problems] == [("LABEL_ABOVE_ONE", 4)]


def test_duplicates_go_and_the_rest_is_sorted() -> None:
    rows, problems = parse_label_text("1 .5 .5 .2 .2\n0 .3 .3 .1 .1\n1 0.5 0.50 .2 .2\n")
    assert [row.cls for row in rows] == [0, 1]
    assert [(problem.code, problem.line, problem.dropped) for problem in problems] == [
        ("LABEL_DUPLICATE", 3, True)
    ]
    assert [row.cls for row in parse_label_text("1 .5 .5 .2 .2\n0 .3 .3 .1 .1\n")[0]] == [1, 0]


def test_a_box_that_leaves_the_picture_is_kept_or_clipped() -> None:
    text = "0 0.98 0.5 0.3 0.2\n0 0.5 0.5 0 0.2\n"
    rows, problems = parse_label_text(text)
    assert [row.w for row in rows] == [0.3, 0.0]
    assert [problem.code for problem in problems] == ["LABEL_LEAVES_IMAGE", "LABEL_NO_AREA"]
    assert not any(problem.dropped for problem in problems)
    rows, problems = parse_label_text(text, tidy=True)
    assert rows[0].numbers == pytest.approx((0, 0.915, 0.5, 0.17, 0.2))
    assert [problem.dropped for problem in problems] == [False, True]


@pytest.mark.parametrize("data", ["0 .5 .5 .1 .1".encode("utf-16"), b"0 .5 .5 .1 .1\n\xff\xff"])
def test_foreign_encodings_are_named(data: bytes) -> None:
    rows, problems = parse_label_text(data)
    assert rows == []
    assert [problem.code for problem in problems] == ["LABEL_ENCODING"]


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    rows, problems = parse_label_text(text, num_classes=3)
    assert all(0 <= number <= 1 for row in rows for number in row.numbers[1:])
    assert all(0 <= row.cls < 3 for row in rows)
    assert all(problem.line >= 1 for problem in problems)


fractions = st.floats(0, 1, allow_nan=False)


@settings(deadline=None)
@given(st.tuples(fractions, fractions, fractions, fractions))
def test_clipping_stays_inside_and_changes_nothing_inside(box: tuple[float, float, float, float]) -> None:
    clipped = clip_row(LabelRow(0, *box))
    assert not clipped.leaves_image
    if not LabelRow(0, *box).leaves_image:
        assert clipped.numbers == pytest.approx((0, *box), abs=2e-5)


def test_written_detections_are_read_as_labels() -> None:
    found = [[10.0, 5.0, 30.0, 10.0, 0.75, 2.0], [0.0, 0.0, 40.0, 20.0, 0.001, 0.0]]
    text = detection_rows(found, (20, 40))
    assert text == "2 0.5 0.375 0.5 0.25\n0 0.5 0.5 1 1\n"
    rows, problems = parse_label_text(text, num_classes=3)
    assert [row.numbers for row in rows] == [(2, 0.5, 0.375, 0.5, 0.25), (0, 0.5, 0.5, 1, 1)]
    assert not problems
    assert detection_rows(found, (20, 40), with_score=True).split()[5::6] == ["0.75", "0.001"]
    assert detection_rows([], (20, 40)) == ""
