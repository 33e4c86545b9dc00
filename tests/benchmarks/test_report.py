"""The table of figures as text and as Markdown, and what the README says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from api.client import Event
from benchmarks.live import Course
from benchmarks.report import Setting, markdown_table, readme, text_table, updated
from benchmarks.run import NAMES, parse_arguments
from benchmarks.stats import Bound, Figure

FIGURES = [
    Figure("API import", 0.5, "0.50 s", Bound(1, "s"), "median of 7"),
    Figure("a | b", 2.0, "2 ms", None, "for information"),
]
SETTING = Setting(
    date="2026-01-02 03:04 UTC",
    processor="A Processor",
    cores=2,
    memory_bytes=8 << 30,
    system="Linux 6",
    python="3.11.9",
    torch="2.14.1",
    revision="abc1234",
    load_before=0.1,
    load_after=1.26,
)


def test_text_table_is_aligned() -> None:
    header, first, second = text_table(FIGURES).splitlines()
    assert header.index("measured") == first.index("0.50 s") == second.index("2 ms")
    assert [cell.strip() for cell in re.split(r"\s{2,}", first)] == [
        "API import",
        "0.50 s",
        "at most 1 s",
        "kept",
        "median of 7",
    ]


def test_markdown_cells_keep_their_bars() -> None:
    lines = markdown_table(FIGURES).splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- |"
    assert lines[3] == "| a \\| b | 2 ms |  | - | for information |"


def test_readme_tells_table_machine_and_names() -> None:
    text = readme(FIGURES, SETTING, NAMES)
    assert "| API import | 0.50 s | at most 1 s | kept | median of 7 |" in text
    assert "- processor: A Processor, 2 cores, 8 GiB of memory" in text
    assert "- load: 0.1 before, 1.3 after (over one minute)" in text
    assert ", ".join(NAMES) in text


def test_rows_are_measured_anew_one_by_one() -> None:
    text = readme(FIGURES, SETTING, NAMES)
    later = replace(SETTING, date="2026-02-03 04:05 UTC", revision="def5678")
    for shown in ("3 ms", "4 ms"):
        more = replace(FIGURES[0], name="- of it more")
        text = updated(text, [replace(FIGURES[1], shown=shown), more], later, ["step"])
    assert text.count("a \\| b") == 1
    assert "| a \\| b | 4 ms |  | - | for information |\n| - of it more | 0.50 s |" in text
    assert text.count("of it more") == 1 and "| API import | 0.50 s |" in text
    assert [line for line in text.splitlines() if "2026-02-03" in line] == [
        "- measured anew: step: 2026-02-03 04:05 UTC, revision def5678, load 0.1 before, 1.3 after"
    ]
    with pytest.raises(KeyError, match="new"):
        updated(text, [replace(FIGURES[1], name="new")], later, ["step"])


@pytest.mark.parametrize("arguments", [["--update"], ["import", "--update", "--quick"]])
def test_rows_alone_want_names_and_full_sizes(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(arguments)


def test_command_line() -> None:
    options = parse_arguments(["import", "--quick"])
    assert options.names == ["import"]
    assert options.quick


def test_course_of_a_job() -> None:
    course = Course(submitted=100.0)
    for kind, ts, arrived in (
        ("phase", 101.0, 101.2),
        ("start", 104.0, 104.1),
        ("batch", 105.0, 105.5),
        ("batch", 106.0, 106.3),
    ):
        course.take(Event(type=kind, id="1-1", data={"ts": ts}), arrived)
    course.take(Event(type="job", data={}), 110.0)
    course.take(Event(type="end", id="1-9", data={"status": "succeeded"}), 111.0)
    assert course.to_first_batch_s == 5.5
    assert course.parts_s == (1.0, 3.0, 1.0, 0.5)
    assert course.num_batches == 2
    assert [round(delay, 3) for delay in course.delays] == [0.2, 0.1, 0.5, 0.3]
