"""The commands of the page on using weights run as they stand there."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.shared import ROOT
from tests.yolocore.commands.conftest import Finished
from tests.yolocore.commands.test_predict import write_video
from yolocore.__main__ import main

PAGE = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("python -m yolocore ")]


@pytest.fixture(scope="module")
def place(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page speaks of."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(finished.data_yaml.parent, folder, dirs_exist_ok=True)
    shutil.copy(finished.best, folder / "best.pt")
    shutil.copytree(folder / "images" / "val", folder / "pictures")
    write_video(folder / "film.avi", num_frames=2)
    return folder


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_does_what_the_page_says(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(COMMANDS) == 11
    monkeypatch.chdir(place)
    assert main([*shlex.split(line)[3:], "--threads=1"]) == 0, capsys.readouterr().err
    words = shlex.split(line)
    if "--out" in words:
        assert any(Path(words[words.index("--out") + 1]).iterdir())
