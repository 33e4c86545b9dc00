"""Writes down what became of a run: JSON for scripts, JUnit XML for pipelines, Markdown and SVG for people.

Every file is written however the run ended, with what was known by then. It must not know HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from api.cli.curves import draw_curves
from api.cli.gates import EXIT_MISSED, LOSSES, SHARES, Verdict
from api.cli.jobtext import duration
from api.cli.session import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_ALLOWED,
    EXIT_TIMEOUT,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    describe_problem,
)
from api.client import Architecture, Dataset, Job

RESULTS = {
    0: "passed",
    EXIT_FAILED: "failed",
    EXIT_USAGE: "refused",
    EXIT_MISSED: "missed",
    EXIT_CANCELLED: "cancelled",
    EXIT_TIMEOUT: "timeout",
    EXIT_UNREACHABLE: "unreachable",
    EXIT_NOT_ALLOWED: "not_allowed",
    EXIT_INTERRUPTED: "interrupted",
}
SUMMARY, JUNIT, REPORT = "summary.json", "junit.xml", "report.md"
ARTIFACTS = "artifacts"
_LOSS_PICTURE, _FIGURE_PICTURE = "losses.svg", "figures.svg"
FILES = (SUMMARY, JUNIT, REPORT, _LOSS_PICTURE, _FIGURE_PICTURE)
_DRAWN_SHARES = ("map50", "map50_95", "precision", "recall")
_LAST_EPOCHS = 10
# What XML 1.0 cannot hold at all.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class Outcome:
    """All that is known of a run; filled in as it goes."""

    recipe: str
    exit_code: int = 0
    message: str | None = None
    problems: list[dict[str, Any]] = field(default_factory=list)
    service: str | None = None
    commit: str | None = None
    fingerprint: str | None = None
    idempotency_key: str | None = None
    is_reused: bool = False
    dataset: Dataset | None = None
    architecture: Architecture | None = None
    job: Job | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def result(self) -> str:
        """Return the exit code in a word."""
        return RESULTS.get(self.exit_code, "failed")

    @property
    def reason(self) -> str | None:
        """Return why there is no result to judge: the job's own error, or what ended the run."""
        error = self.job.error if self.job is not None else None
        if error:
            return f"{error.get('code')}: {describe_problem(error)}"
        return self.message

    def as_json(self) -> dict[str, Any]:
        """Return the summary: stable keys, null for what is not known."""
        return {
            "schema": 1,
            "result": self.result,
            "exit_code": self.exit_code,
            "message": self.reason,
            "problems": self.problems,
            "recipe": self.recipe,
            "service": self.service,
            "commit": self.commit,
            "fingerprint": self.fingerprint,
            "idempotency_key": self.idempotency_key,
            "reused": self.is_reused,
            "seconds": round(self.seconds, 3),
            "figures": self.figures,
            "gates": [verdict.as_json() for verdict in self.verdicts],
            "job": self.job.as_json() if self.job is not None else None,
            "dataset": self.dataset.as_json() if self.dataset is not None else None,
            "architecture": _without_text(self.architecture),
            "epochs": self.rows,
            "artifacts": self.artifacts,
        }


def _without_text(architecture: Architecture | None) -> dict[str, Any] | None:
    if architecture is None:
        return None
    return {key: value for key, value in architecture.as_json().items() if key != "text"}


def clear_reports(folder: Path) -> None:
    """Make the folder and remove what an earlier run left there: nobody shall take it for this one's.

    Only reports, and artifacts that the earlier summary names; other files stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in _fetched_before(folder):
        path.unlink(missing_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _fetched_before(folder: Path) -> Iterator[Path]:
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        names = [str(item["path"]) for item in summary["artifacts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    within = (folder / ARTIFACTS).resolve()
    for name in names:
        path = folder / name
        if path.resolve().is_relative_to(within) and path.is_file():
            yield path


def write_reports(folder: Path, outcome: Outcome) -> None:
    """Write all files of an outcome; the summary last, so that it stands for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    if outcome.rows:
        (folder / _LOSS_PICTURE).write_text(_loss_picture(outcome.rows), encoding="utf-8")
        (folder / _FIGURE_PICTURE).write_text(_figure_picture(outcome.rows), encoding="utf-8")
    (folder / REPORT).write_text("\n".join(_markdown(outcome)) + "\n", encoding="utf-8")
    (folder / JUNIT).write_bytes(_junit(outcome))
    text = json.dumps(outcome.as_json(), ensure_ascii=False, indent=2)
    (folder / SUMMARY).write_text(text + "\n", encoding="utf-8")


def _loss_picture(rows: Sequence[dict[str, Any]]) -> str:
    curves = {}
    for name in LOSSES:
        split, _, part = name.partition("_")
        curves[name] = [(row.get(split) or {}).get(part) for row in rows]
    return draw_curves("Losses", curves)


def _figure_picture(rows: Sequence[dict[str, Any]]) -> str:
    curves = {name: [row.get(name) for row in rows] for name in _DRAWN_SHARES}
    return draw_curves("Precision, recall, mAP", curves)


def _junit(outcome: Outcome) -> bytes:
    """Return the XML: one test case for the job, one for each gate."""
    suite = Xml.Element("testsuite", name="trainshed", time=f"{outcome.seconds:.3f}")
    properties = Xml.SubElement(suite, "properties")
    facts = {"job": outcome.job.id if outcome.job else None, "commit": outcome.commit, **outcome.figures}
    for name, value in facts.items():
        if value is not None:
            Xml.SubElement(properties, "property", name=name, value=_xml(str(value)))
    _job_case(suite, outcome)
    for verdict in outcome.verdicts:
        case = Xml.SubElement(suite, "testcase", classname="trainshed.gates", name=_xml(verdict.gate))
        if verdict.passed is None:
            Xml.SubElement(case, "skipped", message=_xml(verdict.note))
        elif not verdict.passed:
            Xml.SubElement(case, "failure", message=_xml(str(verdict)), type="missed")
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True))


def _job_case(suite: Xml.Element, outcome: Outcome) -> None:
    case = Xml.SubElement(suite, "testcase", classname="trainshed", name="job", time=f"{outcome.seconds:.3f}")
    if outcome.exit_code in (0, EXIT_MISSED):
        return
    kind = "failure" if outcome.exit_code == EXIT_FAILED else "error"
    told = Xml.SubElement(case, kind, message=_xml(outcome.reason or outcome.result), type=outcome.result)
    told.text = _xml("\n".join(describe_problem(problem) for problem in outcome.problems)) or None


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)


def _markdown(outcome: Outcome) -> Iterator[str]:
    yield f"# Training: {outcome.result.replace('_', ' ')}"
    yield ""
    if outcome.reason:
        yield from (f"> {_cell(outcome.reason)}", "")
    for problem in outcome.problems:
        yield f"- {_cell(describe_problem(problem))}"
    if outcome.problems:
        yield ""
    if outcome.job is not None and outcome.job.simulated:
        yield from ("**Simulated: no network was trained, the figures mean nothing.**", "")
    yield from _table(("", ""), _facts(outcome))
    if outcome.verdicts:
        yield from ("## Requirements", "")
        yield from _table(("", "requirement", "found", "bound", ""), map(_verdict_row, outcome.verdicts))
    if outcome.figures:
        best = (outcome.job.best or {}).get("epoch") if outcome.job else None
        yield from (f"## Best epoch{f' ({best + 1})' if isinstance(best, int) else ''}", "")
        yield from _table(("figure", "value"), ((name, f"{v:.5g}") for name, v in outcome.figures.items()))
    if outcome.rows:
        yield from ("## Curves", "", f"![losses]({_LOSS_PICTURE})", "", f"![figures]({_FIGURE_PICTURE})", "")
        yield from _epochs(outcome.rows)
    if outcome.artifacts:
        yield from ("## Artifacts", "")
        found = ((item["path"], item["size_bytes"], item["sha256"]) for item in outcome.artifacts)
        yield from _table(("file", "bytes", "SHA-256"), found)


def _facts(outcome: Outcome) -> Iterator[tuple[str, object]]:
    job, dataset, architecture = outcome.job, outcome.dataset, outcome.architecture
    if job is not None:
        reused = " (an identical run of before)" if outcome.is_reused else ""
        yield "job", f"{job.name or ''} {job.id}: {job.status}{reused}".strip()
    if dataset is not None:
        splits = ", ".join(f"{count} {split}" for split, count in (dataset.splits or {}).items() if count)
        yield "dataset", f"{dataset.name} {dataset.id}{f': {splits}' if splits else ''}"
    if architecture is not None:
        yield "architecture", f"{architecture.name} {architecture.id}"
    if outcome.commit:
        yield "commit", outcome.commit
    if outcome.service:
        yield "service", outcome.service
    yield "time", duration(outcome.seconds)


def _verdict_row(verdict: Verdict) -> tuple[object, ...]:
    word = {True: "passed", False: "**missed**", None: "not judged"}[verdict.passed]
    found, bound = ("-" if number is None else f"{number:.6g}" for number in (verdict.found, verdict.bound))
    return word, verdict.gate, found, f"{verdict.relation} {bound}".strip(), verdict.note


def _epochs(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    shown = rows[-_LAST_EPOCHS:]
    if len(shown) < len(rows):
        yield from (f"The last {len(shown)} of {len(rows)} epochs:", "")
    table = []
    for row in shown:
        losses = [(row.get(split) or {}).get(part) for split, part in (n.split("_") for n in LOSSES)]
        figures = [row.get(name) for name in SHARES[:-1]]
        table.append((int(row["epoch"]) + 1, *(_number(value) for value in (*losses, *figures))))
    yield from _table(("epoch", *LOSSES, *SHARES[:-1]), table)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _table(heads: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(_cell(str(value)) for value in row)} |"
    yield ""


def _cell(text: str) -> str:
    """Return a text that breaks neither table nor page: names come from people."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
