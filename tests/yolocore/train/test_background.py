"""Checkpoints that a thread writes: whole, in order, of the very moment, and never silently lost."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import do_run, newest_checkpoint, request, weights_hash
from tests.support.shapes import write_shapes
from yolocore.errors import DiskFullError
from yolocore.spec.events import CheckpointSaved, TrainEvent
from yolocore.train.checkpoint import Position, Snapshot, checkpoints_in, load_checkpoint
from yolocore.train.outputs import RunFolder, WeightsCard

CARD = WeightsCard(["a"], [8.0], [[[1.0, 1.0]]], "", "tiny.yaml", 64)


def snapshot(batch: int, weight: torch.Tensor) -> Snapshot:
    return Snapshot(
        position=Position(0, batch),
        model={"weight": weight},
        ema={"weight": weight},
        ema_updates=batch,
        optimizer={"state": {0: {"momentum_buffer": weight}}, "param_groups": [{"lr": 0.1}]},
        scaler={},
        gradients={},
        epoch_sum=torch.zeros(3),
        epoch_count=batch,
        best=None,
        best_weights=None,
        stopping={"patience": 0},
        balance=[1.0],
        rows=[],
    )


def folder_in(tmp_path: Path, emit: Any, **more: Any) -> RunFolder:
    return RunFolder(tmp_path, emit=emit, card=CARD, identity={}, background=True, **more)


def test_what_is_written_is_the_state_of_the_moment(tmp_path: Path) -> None:
    gate, told = threading.Event(), list[TrainEvent]()

    def emit(event: TrainEvent) -> None:
        told.append(event)
        gate.wait(10)  # holds the writer back, not the loop

    weight = torch.zeros(4)
    with folder_in(tmp_path, emit) as output:
        output.checkpoint(snapshot(1, weight))
        weight += 1  # training goes on
        gate.set()
        output.checkpoint(snapshot(2, weight))
        weight += 1
    first, second = (load_checkpoint(path) for path in checkpoints_in(tmp_path / "checkpoints"))
    for kept, value in ((first, 0.0), (second, 1.0)):
        assert kept.model["weight"].tolist() == kept.ema["weight"].tolist() == [value] * 4
        assert kept.optimizer["state"][0]["momentum_buffer"].tolist() == [value] * 4
    assert [event.batch for event in told if isinstance(event, CheckpointSaved)] == [1, 2]


@pytest.mark.parametrize("ask", ["checkpoint", "settle", "close"])
def test_a_failure_of_the_writer_comes_out_at_the_next_occasion(tmp_path: Path, ask: str) -> None:
    output = folder_in(tmp_path, lambda event: None)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").symlink_to("/dev/full")  # no folder: nothing can be written there
    with pytest.raises((DiskFullError, OSError)), output:
        output.checkpoint(snapshot(1, torch.zeros(4)))
        if ask == "checkpoint":
            output.checkpoint(snapshot(2, torch.zeros(4)))
        elif ask == "settle":
            output.settle()


def test_the_first_failure_is_the_one_that_is_told(tmp_path: Path) -> None:
    output = folder_in(tmp_path, lambda event: None)
    (tmp_path / "checkpoints").rmdir()
    with pytest.raises(RuntimeError, match="the loop's own"), output:
        output.checkpoint(snapshot(1, torch.zeros(4)))
        raise RuntimeError("the loop's own")


def test_threads_change_neither_the_weights_nor_the_order_of_events(tmp_path: Path) -> None:
    data_yaml = write_shapes(tmp_path / "data")
    orders, hashes = [], []
    for background in (False, True):
        folder = tmp_path / str(background)
        told = do_run(
            request(folder, data_yaml, epochs=2), background_checkpoints=background, checkpoint_every_s=0.0
        )
        orders.append([event.type for event in told.events if event.type in ("epoch", "checkpoint")])
        resumed = replace(request(tmp_path / f"{background}2", data_yaml, epochs=2), resume=None)
        middle = checkpoints_in(folder / "checkpoints")[2]
        do_run(replace(resumed, resume=middle))
        hashes.append(weights_hash(newest_checkpoint(tmp_path / f"{background}2")))
        hashes.append(weights_hash(newest_checkpoint(folder)))
    assert orders[0] == orders[1]
    assert len(set(hashes)) == 1
