"""A run in reduced precision that meets batches out of range: what it mends, tells and refuses."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.overflows import CONV, NUM_BATCHES, Run, same, steep
from tests.support.runs import WishAt, do_run, newest_checkpoint, request, weights_hash
from tests.support.shapes import write_shapes
from yolocore.errors import NonFiniteError
from yolocore.train.checkpoint import encode, load_checkpoint, save_checkpoint
from yolocore.train.islands import is_island
from yolocore.train.precision import PrecisionName
from yolocore.train.protocols import Wish


def test_a_module_that_overflows_becomes_an_island_and_the_run_goes_on() -> None:
    run = Run().go()
    (island,) = run.warnings("AMP_ISLAND")
    assert island.place == "epoch 1, batch 4"
    assert CONV in island.message and "3-0.png, 3-1.png" in island.message
    assert len(run.warnings("AMP_ROLLBACK")) == 1 and not run.warnings("AMP_OFF")
    for network in (run.network, run.trainer.ema.network):
        assert [name for name, module in network.named_modules() if is_island(module)] == [CONV]
    assert run.state["islands"] == [CONV] and not run.state["fell_back"] and run.state["skipped"] <= 1
    batches = [event.batch for event in run.events if event.type == "batch"]
    assert batches == sorted(batches) and batches[-1] == NUM_BATCHES - 1
    assert len(run.output.rows) == 1 and run.trainer.ema.updates == NUM_BATCHES


def test_a_sound_run_pays_nothing() -> None:
    run, plain = Run(marked=()).go(), Run(marked=(), remember_every=0).go()
    assert same(run.trainer, plain.trainer)
    assert not any(event.type == "warning" for event in run.events) and not run.islands


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_outcome_does_not_depend_on_when_the_batch_was_noticed(accumulate: int) -> None:
    marked = (5, 12)
    settings: list[dict[str, Any]] = [{}, {"remember_every": 1}, {"remember_every": 3}]
    settings.append({"checkpoint_every_s": 0.0})
    runs = [Run(marked=marked, accumulate=accumulate, epochs=2, **parts).go() for parts in settings]
    assert all(run.islands == [CONV] for run in runs)
    assert all(same(runs[0].trainer, run.trainer) for run in runs[1:])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_killed_anywhere_ends_as_the_one_that_was_not(accumulate: int, tmp_path: Path) -> None:
    whole = Run(accumulate=accumulate, checkpoint_every_s=0.0).go()
    positions = set()
    for index in range(0, len(whole.output.files), 2):
        snapshot = whole.output.read(index, tmp_path)
        positions.add(snapshot.position.batch)
        again = Run(accumulate=accumulate)
        again.trainer.restore(snapshot)
        again.go()
        assert again.islands == [CONV]
        assert same(whole.trainer, again.trainer), snapshot.position
    assert min(positions) < 3 < max(positions)


def wish_at(question: int, wish: Wish) -> Callable[[], Wish | None]:
    asked = 0

    def poll() -> Wish | None:
        nonlocal asked
        asked += 1
        return wish if asked >= question else None

    return poll


@pytest.mark.parametrize("question", [3, 5, 8])
def test_a_pause_never_keeps_a_bad_batch(question: int, tmp_path: Path) -> None:
    whole = Run().go()
    paused = Run(poll=wish_at(question, "pause"))
    assert paused.trainer.run() == "pause"
    snapshot = paused.output.read(-1, tmp_path)
    assert snapshot.position == paused.trainer.position
    again = Run()
    again.trainer.restore(snapshot)
    again.go()
    assert same(whole.trainer, again.trainer)


def test_a_wish_while_batches_are_repeated_leaves_a_good_state(tmp_path: Path) -> None:
    whole = Run(marked=(7,)).go()
    paused = Run(marked=(7,), poll=wish_at(NUM_BATCHES, "drain"))  # asked again at the first repeated batch
    assert paused.trainer.run() == "drain"
    snapshot = paused.output.read(-1, tmp_path)
    assert snapshot.position.batch == 1 and not paused.islands
    again = Run(marked=(7,))
    again.trainer.restore(snapshot)
    again.go()
    assert same(whole.trainer, again.trainer)


def test_a_few_skipped_steps_are_the_scalers_business() -> None:
    run = Run(fault=steep, marked=range(5)).go()
    assert not any(event.type == "warning" for event in run.events) and not run.islands
    assert run.trainer.precision.scale == 65536.0 / 2**5
    assert run.state["skipped"] == 5 and run.state["streak"] == 0
    assert any("has skipped 5" in event.message for event in run.events if event.type == "log")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_row_of_skipped_steps_ends_in_an_island_and_a_fresh_scaler(accumulate: int, tmp_path: Path) -> None:
    # From a scale of 16 the fifth skipped step is one too many. Of two batches a step the first is at fault,
    # so the one that is named comes before the one at which the row was noticed.
    changes: dict[str, Any] = {"fault": steep, "accumulate": accumulate, "epochs": accumulate}
    changes["marked"] = range(accumulate, 8 * accumulate, accumulate)
    run = Run(**changes, checkpoint_every_s=0.0)
    run.trainer.precision.load_state_dict({**run.trainer.precision.state_dict(), "scale": 16.0})
    run.go()
    (island,) = run.warnings("AMP_ISLAND")
    assert run.islands == [CONV] and not run.warnings("AMP_OFF")
    assert island.place == f"epoch {accumulate}, batch {6 if accumulate == 1 else 4}"
    assert f"({5 * accumulate}-0.png" in island.message
    assert (run.trainer.precision.scale or 0) > 16.0  # the first scale may be too large, in the ordinary way
    assert run.state["streak"] < 4 <= run.state["skipped"] < 8
    for index in (3, 6 * accumulate):
        again = Run(**changes)
        again.trainer.restore(run.output.read(index, tmp_path))
        assert same(run.trainer, again.go().trainer)


def test_a_fourth_module_puts_the_whole_run_into_fp32(tmp_path: Path) -> None:
    modules = ("model.0.conv", CONV, "model.5.conv", "model.9.cv3.conv")
    run = Run(modules=modules, checkpoint_every_s=0.0).go()
    assert run.islands == list(modules[:3])
    assert len(run.warnings("AMP_ISLAND")) == 3
    (off,) = run.warnings("AMP_OFF")
    assert off.place == "epoch 1, batch 4"
    assert run.trainer.precision.name == "fp32" and run.trainer.precision.scale is None
    again = Run(modules=modules)
    again.trainer.restore(run.output.read(5, tmp_path))
    assert again.trainer.precision.name == "fp32" and again.islands == list(modules[:3])
    assert same(run.trainer, again.go().trainer)
    assert not again.warnings("AMP_OFF")


class Otherwise:
    """A loss that calls another, unless `strange` says what else is to come of the maps."""

    def __init__(self, loss: Any, strange: Callable[[list[Tensor]], float | None]) -> None:
        self.loss = loss
        self.strange = strange
        self.balance = loss.balance

    def __call__(self, maps: list[Tensor], targets: Any) -> tuple[Tensor, Tensor]:
        factor = self.strange(maps)
        total, items = self.loss(maps, targets)
        return (total, items) if factor is None else (total * factor, items * factor)


def test_what_no_module_can_be_blamed_for_ends_in_fp32_at_once() -> None:
    run = Run()

    def strange(maps: list[Tensor]) -> float | None:
        return torch.inf if maps[0].dtype == torch.float16 and len(run.islands) == 1 else None

    run.trainer.loss = Otherwise(run.trainer.loss, strange)
    run.go()
    assert run.islands == [CONV] and len(run.warnings("AMP_OFF")) == 1


def test_a_memory_too_small_for_fp32_is_no_reason_to_give_up() -> None:
    run = Run()

    def strange(maps: list[Tensor]) -> float | None:
        if maps[0].dtype == torch.float32:
            raise torch.OutOfMemoryError("not for fp32")
        return None

    run.trainer.loss = Otherwise(run.trainer.loss, strange)
    run.go()
    assert run.islands == [CONV] and not run.warnings("AMP_OFF")


def test_a_bf16_run_goes_back_before_gradients_spoil_its_weights() -> None:
    run = Run("bf16", steep).go()
    assert run.islands == [CONV]
    (island,) = run.warnings("AMP_ISLAND")
    assert "bf16" in island.message


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_what_is_not_finite_in_fp32_either_ends_the_run_with_rate_and_norm(precision: PrecisionName) -> None:
    run = Run(precision, in_fp32_too=True, checkpoint_every_s=0.0)
    with pytest.raises(NonFiniteError, match="diverged") as caught:
        run.trainer.run()
    assert caught.value.place == "epoch 1, batch 4"
    assert caught.value.value == "3-0.png, 3-1.png"
    assert "0.001" in caught.value.message and "norm" in caught.value.message
    assert precision in caught.value.message
    assert not run.islands and not run.warnings("AMP_OFF") and len(run.output.files) == 3


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_data_that_is_not_finite_names_its_image(precision: PrecisionName) -> None:
    run = Run(precision, marked=())
    images = run.batches[3].images.float()
    images[1, 0, 4, 4] = torch.nan
    run.batches[3] = replace(run.batches[3], images=images)
    with pytest.raises(NonFiniteError, match="images or labels") as caught:
        run.trainer.run()
    assert (caught.value.place, caught.value.value) == ("epoch 1, batch 4", "3-1.png")
    assert not run.islands


def test_a_run_after_its_fall_back_has_no_way_left() -> None:
    modules = ("model.0.conv", CONV, "model.5.conv", "model.9.cv3.conv")
    run = Run(modules=modules, epochs=2)
    run.batches[12] = replace(run.batches[12], images=run.batches[12].images.float() * torch.nan)
    with pytest.raises(NonFiniteError, match="fp32") as caught:
        run.trainer.run()
    assert caught.value.place == "epoch 2, batch 5"
    assert len(run.warnings("AMP_OFF")) == 1


def test_an_older_checkpoint_knows_no_islands() -> None:
    run = Run()
    run.trainer.restore(replace(run.trainer.snapshot(), sentinel={}))
    assert run.state == {"islands": [], "fell_back": False, "skipped": 0, "streak": 0}
    content = torch.load(io.BytesIO(bytes(encode(run.trainer.snapshot()))), weights_only=True)
    assert '"sentinel"' in content["json"]


def test_a_whole_run_goes_on_with_an_island_and_is_resumed_with_it(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data")
    config: dict[str, Any] = {"precision": "fp16", "epochs": 2}
    do_run(request(tmp_path / "0", data, **config), WishAt("pause", 1))
    snapshot = load_checkpoint(newest_checkpoint(tmp_path / "0"))
    for tensors in (snapshot.model, snapshot.ema):
        tensors[f"{CONV}.weight"] *= 1e8  # which the norm behind it brings back, if it gets that far
    start = save_checkpoint(tmp_path / "e0000-b000001.ckpt", snapshot).path

    whole = do_run(replace(request(tmp_path / "1", data, **config), resume=start))
    assert whole.result.outcome == "succeeded"
    assert [event.code for event in whole.of("warning")] == ["AMP_ROLLBACK", "AMP_ISLAND"]
    assert whole.of("warning")[1].place == "epoch 1, batch 2"
    kept = load_checkpoint(newest_checkpoint(tmp_path / "1")).sentinel
    assert kept["islands"] == [CONV] and kept["fell_back"] is False

    do_run(replace(request(tmp_path / "2", data, **config), resume=start), WishAt("drain", 3))
    resumed = replace(request(tmp_path / "3", data, **config), resume=newest_checkpoint(tmp_path / "2"))
    assert not do_run(resumed).of("warning")
    assert weights_hash(newest_checkpoint(tmp_path / "3")) == weights_hash(newest_checkpoint(tmp_path / "1"))
