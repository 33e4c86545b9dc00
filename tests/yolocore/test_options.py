"""Whole small runs with each of the options of training: what changes, and that each is resumed exactly."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import Told, WishAt, do_run, newest_checkpoint, request, weights_hash
from tests.support.shapes import write_shapes
from yolocore.errors import CheckpointError, ConfigError, CoreError
from yolocore.spec.events import TrainEvent
from yolocore.train.checkpoint import load_checkpoint
from yolocore.train.protocols import Wish

ANCHORS = "[[8,8, 12,12], [18,18, 28,28]]"
LARGE = "[[80,80, 120,120], [180,180, 280,280]]"
OPTIONS: list[dict[str, Any]] = [
    {"autobalance": True, "hyp": {"fl_gamma": 1.5}},
    {"freeze": 3, "optimizer": "AdamW"},
    {"rect": True, "hyp": {"degrees": 5.0}},
    {"multi_scale": True, "batch": 4},
    {"quad": True, "batch": 4},
    {"image_weights": True, "hyp": {"mixup": 0.3}},
    {"batch": -1},
    {"hyp": {"anchors": 2}},
    {"precision": "fp16"},
]


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))


class Armed(WishAt):
    """Counts questions from the start of training on; measuring a batch asks as well."""

    armed = False

    def hear(self, event: TrainEvent) -> None:
        self.armed = self.armed or event.type == "start"

    def poll(self) -> Wish | None:
        return super().poll() if self.armed else None


def logs(told: Told) -> str:
    return "\n".join(event.message for event in told.of("log"))


@pytest.mark.parametrize("config", OPTIONS, ids=lambda config: next(iter(config)))
def test_every_option_is_resumed_exactly_from_mid_epoch_and_from_its_end(
    data_yaml: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    config = {"epochs": 3, **config}
    whole = do_run(request(tmp_path / "0", data_yaml, **config))
    assert whole.result.outcome == "succeeded"
    batches = whole.of("start")[0].batches_per_epoch
    hashes = [weights_hash(newest_checkpoint(tmp_path / "0"))]
    for number, question in ((1, 1), (2, batches + 2)):
        folder = tmp_path / str(number)
        asked = request(folder, data_yaml, **config)
        control = Armed("pause", question)
        do_run(asked, control, watch=control.hear)
        do_run(replace(asked, resume=newest_checkpoint(folder)), loader_threads=0)
        hashes.append(weights_hash(newest_checkpoint(folder)))
    assert hashes[0] == hashes[1] == hashes[2]


@pytest.mark.parametrize("config", OPTIONS[:6], ids=lambda config: next(iter(config)))
def test_every_option_changes_the_numbers(data_yaml: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    config = {"epochs": 2, **config}
    plain = {**config, **{name: False for name, value in config.items() if value is True}, "freeze": 0}
    for name, values in (("with", config), ("without", plain)):
        do_run(request(tmp_path / name, data_yaml, **values))
    hashes = [weights_hash(newest_checkpoint(tmp_path / name)) for name in ("with", "without")]
    assert hashes[0] != hashes[1]


def test_frozen_rows_stay_as_they_began(data_yaml: Path, tmp_path: Path) -> None:
    do_run(request(tmp_path / "1", data_yaml, epochs=1, freeze=[0, 2]), WishAt("pause", 1))
    before = load_checkpoint(newest_checkpoint(tmp_path / "1")).model
    do_run(request(tmp_path / "2", data_yaml, epochs=2, freeze=[0, 2]))
    after = load_checkpoint(newest_checkpoint(tmp_path / "2")).model
    moved = {key.split(".")[1] for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved == {"1", "3", "4", "5", "6", "9", "10"}
    with pytest.raises(ConfigError) as caught:
        do_run(request(tmp_path / "3", data_yaml, freeze=[1, 99]))
    assert caught.value.place == "/freeze"


def test_anchors_are_fitted_where_the_models_own_cannot_match(data_yaml: Path, tmp_path: Path) -> None:
    asked = request(tmp_path / "fitted", data_yaml, epochs=1)
    large = replace(asked, architecture_text=asked.architecture_text.replace(ANCHORS, LARGE))
    told = do_run(large)
    assert "anchors are fitted" in logs(told) and not told.of("warning")
    card = torch.load(tmp_path / "fitted" / "artifacts" / "best.pt", weights_only=True)
    grid = card["model"]["model.10.anchors"]
    strides = torch.tensor(card["strides"]).view(-1, 1, 1)
    assert torch.equal(grid * strides, torch.tensor(card["anchors_px"]))
    assert float(grid.max()) < 10

    kept = replace(
        large, folder=tmp_path / "kept", config=request(tmp_path, data_yaml, autoanchor=False).config
    )
    (warned,) = do_run(kept, WishAt("cancel", 1)).of("warning")
    assert warned.code == "ANCHORS_FIT_BADLY" and "%" in warned.message


def test_a_count_of_anchors_is_fitted_or_refused(data_yaml: Path, tmp_path: Path) -> None:
    asked = request(tmp_path / "1", data_yaml, epochs=1)
    counted = replace(asked, architecture_text=asked.architecture_text.replace(ANCHORS, "2"))
    assert "anchors are fitted" in logs(do_run(counted))
    refused = request(tmp_path / "2", data_yaml, autoanchor=False)
    with pytest.raises(CoreError, match="anchors") as caught:
        do_run(replace(refused, architecture_text=counted.architecture_text))
    assert caught.value.code == "PLACEHOLDER_ANCHORS"
    assert not (tmp_path / "2").exists()


def test_a_measured_batch_is_told_and_kept(data_yaml: Path, tmp_path: Path) -> None:
    told = do_run(request(tmp_path, data_yaml, epochs=1, batch=-1))
    assert told.of("start")[0].batch == 10  # all images: fewer than 16
    assert "batch 10: a step takes" in logs(told)
    assert load_checkpoint(newest_checkpoint(tmp_path)).identity["batch"] == 10


def test_a_network_that_overflows_in_fp16_is_trained_in_fp32(data_yaml: Path, tmp_path: Path) -> None:
    asked = request(tmp_path / "0", data_yaml, epochs=1)
    do_run(asked)
    content = torch.load(tmp_path / "0" / "artifacts" / "best.pt", weights_only=True)
    for key in ("model.1.bn.weight", "model.1.bn.bias"):
        content["model"][key] = content["model"][key].float() * 1e6
    torch.save(content, tmp_path / "wild.pt")
    wild = replace(
        request(tmp_path / "1", data_yaml, epochs=1, precision="fp16"), weights=tmp_path / "wild.pt"
    )
    told = do_run(wild, WishAt("pause", 2))
    assert [event.code for event in told.of("warning")] == ["AMP_OFF"]
    assert told.of("start")[0].precision == "fp32"
    again = do_run(replace(wild, resume=newest_checkpoint(tmp_path / "1")))
    assert again.result.outcome == "succeeded" and not again.of("warning")


def test_a_finished_run_goes_on_for_more_epochs(data_yaml: Path, tmp_path: Path) -> None:
    asked = request(tmp_path / "1", data_yaml, epochs=2)
    do_run(asked)
    done = newest_checkpoint(tmp_path / "1")
    longer = replace(request(tmp_path / "2", data_yaml, epochs=4), resume=done)
    told = do_run(longer)
    assert [row.epoch for row in told.of("epoch")] == [2, 3]
    assert [row.epochs for row in told.of("epoch")] == [4, 4]
    table = (tmp_path / "2" / "artifacts" / "results.csv").read_text().splitlines()
    assert len(table) == 5  # its head, and the epochs of both
    with pytest.raises(CheckpointError, match="finished 2 epochs") as caught:
        do_run(replace(request(tmp_path / "3", data_yaml, epochs=1), resume=done))
    assert caught.value.place == "/epochs"


def test_only_a_finished_run_is_lengthened(data_yaml: Path, tmp_path: Path) -> None:
    do_run(request(tmp_path / "1", data_yaml, epochs=2), WishAt("pause", 2))
    with pytest.raises(CheckpointError, match="another run") as caught:
        do_run(
            replace(request(tmp_path / "2", data_yaml, epochs=4), resume=newest_checkpoint(tmp_path / "1"))
        )
    assert caught.value.value == "epochs was 2, is 4"


def test_a_run_that_stopped_early_has_its_whole_patience_again(data_yaml: Path, tmp_path: Path) -> None:
    still = {"lr0": 1e-7, "warmup_bias_lr": 0.0, "warmup_epochs": 0.0}
    first = do_run(request(tmp_path, data_yaml, epochs=30, patience=2, warmup_min_batches=0, hyp=still))
    stopped = len(first.of("epoch"))
    assert stopped < 30
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "before")
    asked = request(tmp_path / "on", data_yaml, epochs=40, patience=2, warmup_min_batches=0, hyp=still)
    told = do_run(replace(asked, resume=newest_checkpoint(tmp_path)))
    assert len(told.of("epoch")) >= 2


def test_given_weights_start_a_run_and_what_does_not_fit_is_named(data_yaml: Path, tmp_path: Path) -> None:
    do_run(request(tmp_path / "0", data_yaml, epochs=1))
    weights = tmp_path / "0" / "artifacts" / "best.pt"
    asked = replace(request(tmp_path / "1", data_yaml, epochs=1, single_cls=True), weights=weights)
    told = do_run(asked)
    assert "model.10.m.0.weight" in logs(told) and told.result.outcome == "succeeded"
