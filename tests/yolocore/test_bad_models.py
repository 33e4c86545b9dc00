"""Models, weights and checkpoints that do not belong to a run are refused by name, and leave nothing."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.failures import failure
from tests.support.runs import WishAt, do_run, newest_checkpoint, request
from tests.support.shapes import TINY_MODEL, write_shapes
from yolocore.errors import ArchitectureError, CheckpointError, ConfigError
from yolocore.train.request import RunRequest

ANCHORS = "[[8,8, 12,12], [18,18, 28,28]]"


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    """A dataset that the test may spoil."""
    return write_shapes(tmp_path / "shapes")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRequest, Path]:
    """The request of a run that went well, and its newest checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    asked = request(folder / "run", write_shapes(folder / "shapes"), epochs=1)
    do_run(asked)
    return asked, newest_checkpoint(folder / "run")


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "anchors",
    [
        "[[8,8, 12,12], [18,18, 28,28], [40,40, 50,50]]",  # three levels for two maps
        "[[8,8, 12,12]]",
        "[[8,8, 12], [18,18, 28]]",
        "[[8,8, 12,12], [18,18]]",
        "[]",
        "0",
    ],
)
def test_anchors_of_a_wrong_count_are_refused_with_their_line(
    data_yaml: Path, tmp_path: Path, anchors: str
) -> None:
    text = TINY_MODEL.replace(ANCHORS, anchors)
    error = failure(replace(request(tmp_path / "run", data_yaml), architecture_text=text))
    assert isinstance(error, ArchitectureError) and error.problems[0].line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "anchors", "place"),
    [
        ({"autoanchor": False}, "3", "/autoanchor"),
        ({"freeze": 12}, ANCHORS, "/freeze"),
        ({"freeze": [3, 40]}, ANCHORS, "/freeze"),
        ({"quad": True, "batch": 16}, ANCHORS, "/batch"),
    ],
)
def test_settings_that_contradict_the_model_or_the_data_are_refused_by_their_place(
    data_yaml: Path, tmp_path: Path, config: dict[str, Any], anchors: str, place: str
) -> None:
    text = TINY_MODEL.replace(ANCHORS, anchors)
    error = failure(replace(request(tmp_path / "run", data_yaml, **config), architecture_text=text))
    assert isinstance(error, ConfigError) and error.place == place
    assert files_in(tmp_path / "run") == []


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def some_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def flipped(path: Path) -> None:
    """Turn one bit of the largest tensor, as a failing disk does."""
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if "/data/" in info.filename]
    member = max(members, key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    name_length, extra_length = struct.unpack_from("<HH", data, member.header_offset + 26)
    data[member.header_offset + 30 + name_length + extra_length + member.file_size // 2] ^= 0x10
    path.write_bytes(data)


def our_weights(path: Path) -> None:
    torch.save({"format": "trainshed-weights-1", "model": {"a": torch.zeros(1)}}, path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [emptied, halved, some_zip, noise, flipped, our_weights, a_folder, Path.unlink],
)
def test_a_checkpoint_that_is_none_is_refused_by_its_path(
    whole: tuple[RunRequest, Path], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = Path(shutil.copy(whole[1], tmp_path / "a.ckpt"))
    spoil(path)
    error = failure(replace(whole[0], folder=tmp_path / "run", resume=path))
    assert isinstance(error, CheckpointError) and error.place == str(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil", [emptied, halved, some_zip, noise, flipped, a_folder, Path.unlink])
def test_weights_that_are_none_are_refused_by_their_name(
    whole: tuple[RunRequest, Path], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = Path(shutil.copy(whole[0].folder / "artifacts" / "best.pt", tmp_path / "a.pt"))
    spoil(path)
    error = failure(replace(whole[0], folder=tmp_path / "run", weights=path))
    assert isinstance(error, CheckpointError) and (error.place or "").startswith(("a.pt", "archive/data/"))
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_or_of_other_classes_is_refused(
    whole: tuple[RunRequest, Path], data_yaml: Path, tmp_path: Path
) -> None:
    asked = replace(whole[0], folder=tmp_path / "run", resume=whole[1])
    other = replace(asked, architecture_text=TINY_MODEL.replace("[24, 3, 2]", "[32, 3, 2]"))
    assert failure(other).place == "architecture"
    data_yaml.write_text(data_yaml.read_text().replace("disc", "ring"))
    assert failure(replace(asked, data_yaml=data_yaml)).place == "classes"
    assert not (tmp_path / "run").exists()


def test_a_refused_checkpoint_leaves_the_folder_of_its_run_as_it_was(
    whole: tuple[RunRequest, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole[0].folder, tmp_path / "run"))
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}
    checkpoint = newest_checkpoint(folder)
    halved(checkpoint)
    before[str(checkpoint.relative_to(folder))] = checkpoint.read_bytes()
    with pytest.raises(CheckpointError):
        do_run(replace(whole[0], folder=folder, resume=checkpoint))
    assert {name: (folder / name).read_bytes() for name in files_in(folder)} == before


def test_weights_of_another_network_are_taken_as_far_as_they_fit(
    whole: tuple[RunRequest, Path], tmp_path: Path
) -> None:
    model = TINY_MODEL.replace("[24, 3, 2]", "[32, 3, 2]")
    asked = replace(whole[0], folder=tmp_path / "run", architecture_text=model)
    best = whole[0].folder / "artifacts" / "best.pt"
    told = do_run(replace(asked, weights=best), WishAt("cancel", 1))
    assert any("shape" in event.message for event in told.of("log")), told.of("log")
    torch.save({"model.99.conv.weight": torch.zeros(3)}, tmp_path / "b.pt")
    error = failure(replace(asked, folder=tmp_path / "other", weights=tmp_path / "b.pt"))
    assert isinstance(error, CheckpointError) and error.code == "WEIGHTS_DO_NOT_FIT"
