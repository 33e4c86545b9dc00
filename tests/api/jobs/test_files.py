"""Ranges of files, and epochs as results.csv."""

from __future__ import annotations

import pytest

from api.errors import RangeUnsatisfiableError
from api.jobs.files import parse_range
from api.jobs.table import BATCH_COLUMNS, COLUMNS, batch_line, results_csv, table_head
from api.jobs.waiting import wanted_wait_s


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        (None, 10, None),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=2-4", 10, (2, 5)),
        ("bytes=2-400", 10, (2, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-30", 10, (0, 10)),
        ("bytes=9-9", 10, (9, 10)),
        ("bytes=5-2", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("lines=0-1", 10, None),
        ("bytes=a-b", 10, None),
    ],
)
def test_ranges(header: str | None, size: int, span: tuple[int, int] | None) -> None:
    assert parse_range(header, size) == span


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-5", 0), ("bytes=-0", 10)]
)
def test_ranges_behind_the_end(header: str, size: int) -> None:
    with pytest.raises(RangeUnsatisfiableError) as caught:
        parse_range(header, size)
    assert caught.value.headers["Content-Range"] == f"bytes */{size}"


def test_the_table_is_laid_out_as_the_reference_does() -> None:
    values = {
        "train": {"box": 0.123456789, "obj": 0.02, "cls": None},
        "val": None,
        "precision": 0.5,
        "recall": 1e-7,
        "map50": 0,
        "map50_95": 1,
        "lr": [0.1, 0.0001],
    }
    lines = results_csv([(12, values)]).splitlines()
    assert lines[0] == ",".join(f"{name:>20}" for name in COLUMNS)
    assert all(len(cell) == 20 for line in lines for cell in line.split(","))
    expected = "12 0.12346 0.02 nan 0.5 1e-07 0 1 nan nan nan 0.1 0.0001 nan"
    assert [cell.strip() for cell in lines[1].split(",")] == expected.split()


def test_batches_are_laid_out_likewise() -> None:
    batch = {
        "epoch": 2,
        "batch": 7,
        "loss": {"box": 0.25, "obj": None, "cls": 1e-9},
        "lr": [0.1],
        "images_per_s": 41.25,
    }
    head, line = (text.rstrip("\n").split(",") for text in (table_head(BATCH_COLUMNS), batch_line(batch)))
    assert all(len(cell) == 20 for cell in [*head, *line])
    expected = "2 7 0.25 nan 1e-09 0.1 nan nan 41.25"
    assert {cell.strip() for cell in head} - set(COLUMNS) == {"batch", "images_per_s"}
    assert [cell.strip() for cell in line] == expected.split()


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, 0),
        ("wait=5", 5),
        ("respond-async, Wait = 7; x", 7),
        ("wait=3600", 60),
        ("await=5", 0),
        ("wait=abc", 0),
        ("wait=5x", 0),
    ],
)
def test_wishes_to_wait(header: str | None, wait_s: float) -> None:
    assert wanted_wait_s(header, most_s=60) == wait_s
