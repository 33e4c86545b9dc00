"""What the documents tell people to type exists: commands, options, settings, addresses, targets, files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import typer

from api.app import create_app
from api.cli.main import app
from api.domain.settings import Settings
from tests.support.shared import ROOT
from yolocore.spec.config import TrainConfig

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def command_lines() -> Iterator[str]:
    """Yield every line of every fenced block, continuation lines joined, comments dropped."""
    for document in DOCUMENTS:
        for block in FENCE.findall(document.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                yield line.split("  #")[0].strip()


def lines_of(program: str) -> list[str]:
    found = sorted({line for line in command_lines() if line.startswith(program + " ")})
    assert found, f"no document shows {program}"
    return found


def check_options(command: Any, words: list[str], line: str) -> None:
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in known]
    assert not unknown, f"{line!r}: {command.name} has no {unknown}"


@pytest.mark.parametrize("line", lines_of("trainshed"))
def test_the_command_and_its_options_exist(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        name = next(word for word in words if word in command.commands)
        check_options(command, words[: words.index(name)], line)
        words = words[words.index(name) + 1 :]
        command = command.commands[name]
    check_options(command, words, line)


def config_keys(words: list[str]) -> Iterator[str]:
    for before, word in zip(words, words[1:], strict=False):
        if before == "--set":
            yield word.partition("=")[0]


@pytest.mark.parametrize("line", lines_of("trainshed jobs submit"))
def test_the_settings_of_a_job_exist(line: str) -> None:
    for key in config_keys(shlex.split(line)):
        assert_field(key)


def assert_field(key: str) -> None:
    head, _, rest = key.partition(".")
    assert head in TrainConfig.model_fields, key
    if rest:
        section = TrainConfig.model_fields[head].annotation
        assert rest in section.model_fields, key  # type: ignore[union-attr]


@pytest.mark.parametrize("line", lines_of("python -m yolocore"))
def test_the_core_takes_these_options(line: str) -> None:
    words = shlex.split(line)[2:]
    shown = core_help(words[1])
    for word in words:
        assert not word.startswith("-") or word in shown, f"{line!r}: no {word}"


@cache
def core_help(command: str) -> str:
    """Return what a command of the core says of itself; it takes seconds to load."""
    shown = [sys.executable, "-m", "yolocore", command, "--help"]
    return subprocess.run(shown, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("line", lines_of("make"))
def test_the_make_target_exists(line: str) -> None:
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), line


def test_addresses_exist(tmp_path_factory: pytest.TempPathFactory) -> None:
    described = create_app(Settings(data_dir=tmp_path_factory.mktemp("data")), with_loops=False).openapi()
    patterns = [re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + "$") for path in described["paths"]]
    shown = {path for line in command_lines() for path in re.findall(r"(/v1/[\w/.]*\w)", line)}
    assert shown
    for path in shown:
        assert any(pattern.match(path) for pattern in patterns), path


def test_environment_variables_exist() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    others = {"TRAINSHED_URL", "TRAINSHED_TOKEN", "TRAINSHED_REQUIRE", "TRAINSHED_GOLDEN", "TRAINSHED_INTAKE"}
    others |= {"TRAINSHED_DATASETS", "TRAINSHED_WEIGHTS", "TRAINSHED_TEST_STORE"}
    others |= {"TRAINSHED_PACKAGE", "TRAINSHED_OUT", "TRAINSHED_VENV"}  # of examples/ci/ci.sh
    compose = (ROOT / "docker" / "env.example").read_text(encoding="utf-8")
    others |= set(re.findall(r"^#?(TRAINSHED_[A-Z_]+)=", compose, re.MULTILINE))
    for name in set(re.findall(r"TRAINSHED_[A-Z_]+[A-Z]", text)) - others:
        assert name.removeprefix("TRAINSHED_").lower() in Settings.model_fields, name


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
