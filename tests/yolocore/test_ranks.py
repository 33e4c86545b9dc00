"""Whole runs of several processes: told by one, equal in all, ended together, resumed exactly."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import Told, WishAt, do_run, newest_checkpoint, request, weights_hash
from tests.support.shapes import write_shapes
from yolocore.errors import ConfigError, NonFiniteError
from yolocore.train.checkpoint import load_checkpoint
from yolocore.train.request import RunRequest

BATCHES = 3  # of an epoch: 14 images in batches of 6
THREE: dict[str, Any] = {
    "world_size": 3,  # the order in which two are added does not matter
    "batch": 6,
    "nominal_batch": 12,
    "epochs": 2,
    "warmup_min_batches": 1,
    "autobalance": True,  # a state of the loss that ranks must share
}


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), num_train=14)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_yaml: Path) -> tuple[Path, Told]:
    """One run of three processes from start to end."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, do_run(of_three(folder, data_yaml))


def of_three(folder: Path, data_yaml: Path, **config: Any) -> RunRequest:
    """Return a request for a tiny run of three processes."""
    return request(folder, data_yaml, **{**THREE, **config})


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the newest checkpoint without their seconds."""
    kept = load_checkpoint(newest_checkpoint(folder)).rows
    return [{key: value for key, value in row.items() if key != "seconds"} for row in kept]


def test_a_run_of_three_is_told_and_written_once(whole: tuple[Path, Told]) -> None:
    folder, told = whole
    assert told.result.outcome == "succeeded"
    assert told.events[0].type == "start" and told.events[0].batches_per_epoch == BATCHES
    order = [event.type for event in told.events if event.type in ("epoch", "checkpoint")]
    assert order == ["epoch", "checkpoint"] * 2
    assert {event.name for event in told.of("artifact")} >= {"best.pt", "last.pt"}
    assert (folder / "artifacts/best.pt").is_file()
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()


def test_ranks_end_with_equal_weights(whole: tuple[Path, Told]) -> None:
    assert not whole[1].of("warning")  # they are compared before each validation


def test_a_paused_and_resumed_run_of_three_ends_with_the_same_weights(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    first = do_run(of_three(tmp_path / "1", data_yaml), WishAt("pause", 2))  # in mid-accumulation
    assert (first.result.outcome, first.result.kind) == ("stopped", "pause")
    assert not multiprocessing.active_children()
    asked = replace(of_three(tmp_path / "2", data_yaml), resume=newest_checkpoint(tmp_path / "1"))
    second = do_run(asked, checkpoint_every_s=0.0)
    assert second.result.outcome == "succeeded" and not second.of("warning")
    assert weights_hash(newest_checkpoint(tmp_path / "2")) == weights_hash(newest_checkpoint(whole[0]))
    assert weights_hash(tmp_path / "2/artifacts/best.pt") == weights_hash(whole[0] / "artifacts/best.pt")
    assert rows(tmp_path / "2") == rows(whole[0])


def test_a_wish_made_in_validation_ends_all_ranks(data_yaml: Path, tmp_path: Path) -> None:
    asked = of_three(tmp_path, data_yaml, world_size=2)
    told = do_run(asked, WishAt("pause", BATCHES + 1))
    assert (told.result.outcome, told.result.kind) == ("stopped", "pause")
    assert load_checkpoint(newest_checkpoint(tmp_path)).position.phase == "validate"
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()


def test_two_processes_share_out_what_else_a_batch_can_be(data_yaml: Path, tmp_path: Path) -> None:
    asked = of_three(
        tmp_path, data_yaml, world_size=2, batch=8, quad=True, multi_scale=True, precision="bf16", epochs=1
    )
    told = do_run(asked, cache="ram", cache_dir=tmp_path / "cache")
    assert told.result.outcome == "succeeded" and not told.of("warning")
    assert list((tmp_path / "cache").iterdir()), "one file for all instead of a copy in each"


def test_losses_that_are_not_finite_end_all_ranks(data_yaml: Path, tmp_path: Path) -> None:
    wild = {"lr0": 1.0, "warmup_bias_lr": 1.0, "warmup_epochs": 0.0, "box": 10.0, "obj": 10.0, "cls": 10.0}
    asked = of_three(
        tmp_path,
        data_yaml,
        world_size=2,
        batch=4,
        precision="bf16",
        epochs=30,
        hyp=wild,
        clip_norm=1e6,
        patience=0,
        nominal_batch=1,
        autobalance=False,
    )
    with pytest.raises(NonFiniteError) as caught:
        do_run(asked)
    assert caught.value.value is not None and ".png" in caught.value.value
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()


def test_batch_norms_over_ranks_are_refused_on_the_cpu(data_yaml: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SyncBatchNorm needs CUDA") as caught:
        do_run(of_three(tmp_path, data_yaml, sync_bn=True))
    assert caught.value.place == "/sync_bn"
