"""The page on weights says what the code does: every code of the report and of HTTP, reasons, settings."""

from __future__ import annotations

import ast
from pathlib import Path

from api.domain.settings import MIB, Settings
from api.domain.weights_records import WeightsStatus
from tests.docs.test_datasets import codes, rows
from tests.support.shared import ROOT
from yolocore.spec.start import match_tensors

PAGE = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
READERS = [ROOT / "yolocore" / "weights" / f"{name}.py" for name in ("archive", "pickled", "read")]
START = ROOT / "yolocore" / "spec" / "start.py"
IMPORT = [*READERS, START, ROOT / "worker" / "tools.py"]
OVER_HTTP = [*(ROOT / "api" / "weights").glob("*.py"), ROOT / "api" / "domain" / "weights.py"]
# The service's own file is gone: no verdict on what was sent.
NEVER_REPORTED = {"CHECKPOINT_MISSING"}


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def refusals(path: Path) -> set[str]:
    """Return the codes that `_refused` makes of their endings."""
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    found = set()
    for call in calls:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
        if name == "_refused" and texts:
            found.add(f"CHECKPOINT_{texts[0]}")
    return found


def test_every_code_of_the_report_is_explained_and_no_other() -> None:
    found = rows(section("Codes of the report"))
    used = {code for code in codes(IMPORT) if code.startswith(("CHECKPOINT_", "WEIGHTS_"))}
    told = [row[0] for row in found]
    assert len(told) == len(set(told))
    assert set(told) == (used | refusals(READERS[0])) - NEVER_REPORTED
    assert all(len(row) == 4 and (row[1] == "error") == row[0].startswith("CHECKPOINT") for row in found)


def test_every_code_over_http_is_explained_and_no_other() -> None:
    found = rows(section("Codes over HTTP"))
    assert {row[0] for row in found} == codes([*OVER_HTTP, START]) - {"HEAD_BYTES"}
    assert all(len(row) == 4 for row in found)


def test_statuses_and_reasons_are_those_of_the_code() -> None:
    told = [row[0] for row in rows(PAGE.split("\n## Sending")[0])]
    assert told == [status.value for status in WeightsStatus]
    wanted = [("a", (1,)), ("b", (1,)), ("c", (1,)), ("anchors", (1,))]
    fit = match_tensors(wanted, {"a": (2,), "c": (1,), "d": (1,)}, not_finite={"c"})
    reasons = {row[0] for row in rows(section("What is told of them"))}
    assert reasons == {item.reason for item in fit.left_out}


def test_the_settings_exist_and_have_these_defaults() -> None:
    found = rows(section("Settings"))
    weights = {name for name in Settings.model_fields if "weights" in name}
    assert {row[0].removeprefix("TRAINSHED_").lower() for row in found} == weights
    for name, _, default in found:
        value = Settings.model_fields[name.removeprefix("TRAINSHED_").lower()].default
        number = float(default.split()[0])
        assert value == (number * 1024 * MIB if default.endswith(" GiB") else number), name
