"""Reports of a run: well-formed whatever names and figures hold, and written however it ended."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from api.cli.curves import draw_curves
from api.cli.gates import judge, judge_no_worse, parse_no_worse, parse_requirement
from api.cli.reports import RESULTS, Outcome, clear_reports, write_reports
from api.client import Architecture, Dataset, Job

NASTY = 'a|b <script>\n\x00 \\ & "c"'
ROWS: list[dict[str, Any]] = [
    {
        "epoch": epoch,
        "train": {"box": 0.1, "obj": 0.2, "cls": math.nan},
        "val": None if epoch else {"box": 0.1, "obj": 0.2, "cls": 0.3},
        "precision": 0.5,
        "recall": 0.5,
        "map50": 0.5,
        "map50_95": None,
    }
    for epoch in range(12)
]


def full() -> Outcome:
    """Return an outcome with everything filled in."""
    gates = [judge(parse_requirement(text), {"map50": 0.5}) for text in ("map50>=0.1", "map50>=0.9")]
    return Outcome(
        recipe="job.yaml",
        exit_code=3,
        service="http://here",
        commit=NASTY,
        dataset=Dataset(id="ds_1", name=NASTY, status="ready", splits={"train": 3, "val": 1, "test": 0}),
        architecture=Architecture.model_validate({"id": "arch_1", "name": NASTY, "text": "nc: 1"}),
        job=Job(id="job_1", name=NASTY, status="succeeded", best={"epoch": 4}, simulated=True),
        rows=ROWS,
        figures={"map50": 0.5},
        verdicts=[*gates, judge_no_worse(parse_no_worse(NASTY), {}, None, None)],
        artifacts=[{"name": "best.pt", "path": "artifacts/best.pt", "size_bytes": 3, "sha256": "0" * 64}],
        seconds=61.5,
    )


def test_all_files_are_well_formed(tmp_path: Path) -> None:
    write_reports(tmp_path, full())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["schema"], summary["result"], summary["exit_code"]) == (1, "missed", 3)
    assert "text" not in summary["architecture"] and summary["dataset"]["name"] == NASTY
    suite = Xml.parse(tmp_path / "junit.xml").find("testsuite")
    assert suite is not None
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "0", "skipped": "1"}
    for picture in ("losses.svg", "figures.svg"):
        Xml.parse(tmp_path / picture)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[0] == "# Training: missed" and "## Best epoch (5)" in lines
    assert "The last 10 of 12 epochs:" in lines and any("Simulated" in line for line in lines)
    assert not any("<script" in line for line in lines)
    (row,) = [line for line in lines if line.startswith("| 12 |")]
    assert row.split(" | ")[1:3] == ["0.1000", "0.2000"] and " - | " in row
    heads = [index for index, line in enumerate(lines) if line.startswith("|---")]
    for head in heads:
        columns = lines[head].count("---")
        for line in (lines[head - 1], lines[head + 1]):
            assert line.replace("\\|", "").count("|") == columns + 1, line


@pytest.mark.parametrize("code", sorted(RESULTS))
def test_every_ending_is_told_with_what_is_known(code: int, tmp_path: Path) -> None:
    outcome = Outcome(recipe="job.yaml", exit_code=code, message="why" if code else None)
    outcome.problems = [{"file": "job.yaml", "line": 3, "message": "wrong"}] if code == 2 else []
    write_reports(tmp_path, outcome)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["result"], summary["job"]) == (RESULTS[code], None)
    case = Xml.parse(tmp_path / "junit.xml").find(".//testcase[@name='job']")
    assert case is not None
    assert [child.tag for child in case] == {0: [], 3: [], 1: ["failure"]}.get(code, ["error"])
    assert not (tmp_path / "losses.svg").exists()
    report = (tmp_path / "report.md").read_text()
    assert ("> why" in report) is bool(code) and ("job.yaml:3: wrong" in report) is (code == 2)


def test_a_failed_job_s_own_error_is_the_reason(tmp_path: Path) -> None:
    job = Job(id="job_1", status="failed", error={"code": "OUT_OF_MEMORY", "message": "too large"})
    outcome = Outcome(recipe="job.yaml", exit_code=1, job=job)
    assert outcome.reason == "OUT_OF_MEMORY: too large"


def test_what_an_earlier_run_left_goes_and_nothing_else(tmp_path: Path) -> None:
    write_reports(tmp_path, full())
    (tmp_path / "artifacts").mkdir()
    kept = [tmp_path / "artifacts" / "mine.txt", tmp_path / "mine.txt", tmp_path.parent / "outside"]
    for path in (*kept, tmp_path / "artifacts" / "best.pt"):
        path.write_text("x")
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["artifacts"] += [{"path": "../outside"}, {"path": "mine.txt"}, {"path": "artifacts"}]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    clear_reports(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "mine.txt"]
    assert [path.exists() for path in kept] == [True, True, True]
    assert not (tmp_path / "artifacts" / "best.pt").exists()
    (tmp_path / "summary.json").write_text("[]")
    clear_reports(tmp_path / "new" / "folder")


@pytest.mark.parametrize(
    "curves",
    [
        {},
        {"a": []},
        {"a": [None, math.inf]},
        {"a": [0.5]},
        {"a<b": [0.0, 0.0], "b": [-1.0, 2.0, None]},
        {f"c{number}": [float(number)] * 3 for number in range(9)},
    ],
)
def test_curves_of_any_shape_are_a_picture(curves: dict[str, list[float | None]]) -> None:
    picture = draw_curves("a & b", curves)
    root = Xml.fromstring(picture)
    assert root.tag.endswith("svg") and "nan" not in picture and "inf" not in picture
