"""The Dockerfiles: linted, pinned, non-root; no installer, and no torch where none belongs.

Nothing here needs a Docker engine; what the images do once they run is tested elsewhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.shared import ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
IMAGE_USER = "10001:10001"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the (word, rest) of each instruction, comments dropped and continued lines joined."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last_stage(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of the image itself, without those of the stages it copies from."""
    found = instructions(path)
    start = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def test_both_images_are_here() -> None:
    assert [path.name for path in DOCKERFILES] == ["api.Dockerfile", "worker.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [hadolint, "--no-color", "--failure-threshold", "style", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_base_images_are_pinned_to_a_release(path: Path) -> None:
    stages = [rest.split() for word, rest in instructions(path) if word == "FROM"]
    own = {stage[2] for stage in stages if len(stage) == 3}
    assert {stage[0] for stage in stages} - own <= {"python:3.11-slim-bookworm", "node:20-bookworm-slim"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_runs_as_nobody_special(path: Path) -> None:
    stage = last_stage(path)
    users = [rest for word, rest in stage if word == "USER"]
    assert users == [IMAGE_USER]
    after = stage[stage.index(("USER", IMAGE_USER)) :]
    assert {word for word, _ in after} <= {"USER", "EXPOSE", "CMD", "ENTRYPOINT"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_holds_no_installer_and_installs_nothing_at_its_end(path: Path) -> None:
    assert "--without-pip" in path.read_text("utf-8")
    assert not [rest for word, rest in last_stage(path) if word == "RUN" and re.search(r"pip|npm|apt", rest)]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_install_is_held_by_a_lock(path: Path) -> None:
    runs = [rest for word, rest in instructions(path) if word == "RUN"]
    for run in runs:
        if " install " in run and "pip" in run:
            assert "-c /constraints.txt" in run or "--no-deps" in run, run
        if "npm" in run:
            assert "npm ci" in run, run


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_no_syntax_that_only_buildkit_knows(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"--mount|--link|--chmod|<<|^#\s*syntax", text, re.MULTILINE)
    assert "ADD" not in {word for word, _ in instructions(path)}


def test_each_image_installs_its_own_extras_and_only_the_worker_has_torch() -> None:
    installed = {}
    for path in DOCKERFILES:
        extras = re.search(r"python requirements\.py ([a-z ]+) > /requirements\.txt", path.read_text("utf-8"))
        assert extras is not None
        installed[path.name] = extras[1].split()
    assert installed == {"api.Dockerfile": ["api", "postgres"], "worker.Dockerfile": ["worker", "postgres"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    light = project["dependencies"] + [
        dependency
        for extra in installed["api.Dockerfile"]
        for dependency in project["optional-dependencies"][extra]
    ]
    assert not [one for one in light if re.match(r"torch|opencv|matplotlib|trainshed\[worker", one)]


def test_the_list_of_requirements_is_what_the_extras_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    command = [sys.executable, ROOT / "docker" / "requirements.py", "worker", "postgres"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    extras = project["optional-dependencies"]
    named = {*project["dependencies"], *(one for extra in extras.values() for one in extra)}
    found = done.stdout.splitlines()
    assert found == sorted(set(found))
    assert {*project["dependencies"], *extras["api"], *extras["postgres"]} <= set(found) <= named
    assert [one for one in found if one.startswith("torch==")]
    assert not [one for one in found if one.startswith(("trainshed", "pytest"))]


def test_the_code_comes_after_what_it_depends_on() -> None:
    # Or every change of the code would be a layer of several GB.
    for path in DOCKERFILES:
        found = instructions(path)
        heavy = max(index for index, (_, rest) in enumerate(found) if "-r /requirements.txt" in rest)
        light = [
            index
            for index, pair in enumerate(found)
            if pair in (("COPY", "api api"), ("COPY", "worker worker"))
        ]
        assert heavy < min(light)
        copies = [rest.split()[0] for word, rest in last_stage(path) if word == "COPY"]
        assert copies == ["--from=dependencies", "--from=code"]


def test_what_the_images_copy_is_in_the_project_and_let_in() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    }
    for path in DOCKERFILES:
        for word, rest in instructions(path):
            if word != "COPY" or rest.startswith("--from"):
                continue
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in allowed, source


def test_the_context_begins_closed() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    # What is let in again may not bring these along; the rules come after it.
    opened = max(index for index, line in enumerate(lines) if line.startswith("!"))
    assert {"**/node_modules", "**/.*", "**/__pycache__"} <= set(lines[opened:])
