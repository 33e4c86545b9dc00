"""What people copy into their pipelines is sound: the script by ShellCheck, workflows by their schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.shared import ROOT

TOOLS = Path(sys.executable).parent
FOLDER = ROOT / "examples" / "ci"
SCRIPTS = [FOLDER / "ci.sh", ROOT / ".ci" / "run", ROOT / ".ci" / "steps"]
# GitLab's own tags and short forms are resolved first, as GitLab does.
WORKFLOWS = {
    "github.yml": ["--builtin-schema", "vendor.github-workflows"],
    "gitlab.yml": ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}


def told(*command: str) -> str:
    """Return what a checker says against its input, nothing if that is sound."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def workflow_faults(path: Path, options: list[str]) -> str:
    return told(sys.executable, "-m", "check_jsonschema", *options, str(path))


def test_scripts_are_sound() -> None:
    assert told(str(TOOLS / "shellcheck"), *map(str, SCRIPTS)) == ""


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yml")))
def test_a_workflow_is_what_its_service_reads(name: str, tmp_path: Path) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert workflow_faults(FOLDER / name, WORKFLOWS[name]) == ""
    wrong = tmp_path / name
    wrong.write_text(text.replace("script:", "skript:").replace("runs-on:", "runs_on:"))
    assert workflow_faults(wrong, WORKFLOWS[name]) != ""
