"""What docs/deploy.md marks to be run is run, and its tables and variables are those of the files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.containers import DOCUMENT, marked_blocks
from tests.support.shared import ROOT

PAGE = DOCUMENT.read_text("utf-8")


def test_every_marked_block_is_typed_by_the_tests() -> None:
    text = (ROOT / "tests" / "deploy" / "test_stack.py").read_text("utf-8")
    assert len(marked_blocks()) == PAGE.count("<!-- run:")
    assert [name for name in marked_blocks() if f'"{name}"' not in text] == []


def test_what_is_typed_is_sound(tmp_path: Path) -> None:
    script = tmp_path / "deploy.sh"
    script.write_text("\n".join(["#!/bin/bash", "set -euo pipefail", *marked_blocks().values()]), "utf-8")
    command = [Path(sys.executable).with_name("shellcheck"), script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_variable_is_one_of_the_example() -> None:
    example = (ROOT / "docker" / "env.example").read_text("utf-8")
    offered = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    told = set(re.findall(r"\b(?:TRAINSHED|PIP|POSTGRES|REDIS)_[A-Z_]+\b", PAGE))
    # Of the command line, which speaks to the service.
    assert told - offered == {"TRAINSHED_URL", "TRAINSHED_TOKEN"}


def test_the_image_that_has_the_command_is_the_one_that_is_built() -> None:
    images = set(re.findall(r"trainshed-(?:api|worker):[\d.]+", PAGE))
    assert images == set(
        re.findall(r"image: (trainshed-\S+)", (ROOT / "docker-compose.yml").read_text("utf-8"))
    )
