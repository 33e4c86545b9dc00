"""Checkpoint files: whole or absent, readable without running code, refused by name when they are wrong."""

from __future__ import annotations

import errno
import hashlib
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from yolocore.errors import CheckpointError, DiskFullError, OutOfMemoryError
from yolocore.train.checkpoint import (
    Best,
    Position,
    Snapshot,
    checkpoint_name,
    checkpoints_in,
    load_checkpoint,
    load_into,
    save_checkpoint,
)
from yolocore.train.failures import naming_failures
from yolocore.train.files import describe, publish, remove_leftovers


def snapshot(**changes: Any) -> Snapshot:
    network = nn.Linear(2, 2)
    values: dict[str, Any] = {
        "position": Position(2, 5, 31, "train"),
        "model": dict(network.state_dict()),
        "ema": dict(network.state_dict()),
        "ema_updates": 9,
        "optimizer": torch.optim.SGD(network.parameters(), lr=0.1).state_dict(),
        "scaler": {},
        "gradients": {"weight": torch.ones(2, 2)},
        "epoch_sum": torch.tensor([1.0, 2.0, 3.0]),
        "epoch_count": 5,
        "best": Best(1, 0.5, 0.6, 0.4),
        "best_weights": None,
        "stopping": {"patience": 3, "best_fitness": 0.5, "best_epoch": 1},
        "balance": [4.0, 1.0, 0.4],
        "rows": [{"type": "epoch", "epoch": 0}],
        "identity": {"config_hash": "abc"},
    }
    return Snapshot(**{**values, **changes})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    before = snapshot()
    written = save_checkpoint(path, before)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert written == describe(path)
    after = load_checkpoint(path)
    assert (after.position, after.best, after.rows) == (before.position, before.best, before.rows)
    assert after.identity == {"config_hash": "abc"}
    assert torch.equal(after.model["weight"], before.model["weight"])
    assert torch.equal(after.gradients["weight"], torch.ones(2, 2))
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_are_found_in_the_order_of_the_run(tmp_path: Path) -> None:
    positions = [
        Position(0, 3),
        Position(0, 12),
        Position(1, 0),
        Position(9999, 999_999),
        Position(10_000, 0),
    ]
    names = [checkpoint_name(position) for position in positions]
    for name in (*reversed(names), "other.ckpt", ".e0001-b000000.ckpt.7.part"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints_in(tmp_path)] == names
    assert names[0] == "e0000-b000003.ckpt"


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def foreign(path: Path) -> None:
    torch.save({"model": torch.zeros(1)}, path)


def poisoned(path: Path) -> None:
    path.write_bytes(pickle.dumps(Path("x")))


def objects(path: Path) -> None:
    torch.save({"format": Path("x")}, path)


def incomplete(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["optimizer"]
    torch.save(content, path)


@pytest.mark.parametrize("spoil", [damaged, foreign, poisoned, objects, incomplete, Path.unlink])
def test_a_wrong_file_is_refused_with_its_path(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, snapshot())
    spoil(path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert caught.value.place == str(path)


def test_state_of_another_network_is_refused() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_into(nn.Linear(2, 3), dict(nn.Linear(2, 2).state_dict()), "network")
    assert caught.value.place == "bias"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    path = tmp_path / "a.bin"
    publish(path, b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFullError) as caught:
        publish(path, b"new")
    assert caught.value.place == str(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_only_half_files_are_leftovers(tmp_path: Path) -> None:
    for name in (".a.ckpt.123.part", "b.part", ".c.ckpt", "d.ckpt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"b.part", ".c.ckpt", "d.ckpt"}


def test_memory_that_opencv_does_not_get_has_a_name() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(OutOfMemoryError, match="lower the batch"), naming_failures():
        cv2.resize(image, (2_000_000, 2_000_000))


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemoryError),
        (MemoryError(), OutOfMemoryError),
        (RuntimeError("std::bad_alloc"), OutOfMemoryError),
        (RuntimeError("can't start new thread"), OutOfMemoryError),
        (ImportError("a.so: failed to map segment from shared object"), OutOfMemoryError),
        (OSError(errno.ENOMEM, "none"), OutOfMemoryError),
        (OSError(errno.ENOSPC, "full"), DiskFullError),
        (OSError(errno.EFBIG, "too large"), DiskFullError),
        (OSError(errno.EDQUOT, "your share is full"), DiskFullError),
        (RuntimeError("something else"), RuntimeError),
        (OSError(errno.EACCES, "no"), OSError),
    ],
)
def test_what_the_machine_refuses_has_a_name(error: Exception, named: type[Exception]) -> None:
    with pytest.raises(named) as caught, naming_failures():
        raise error
    assert type(caught.value) is named or isinstance(caught.value, PermissionError)
