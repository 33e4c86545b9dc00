"""Golden runs of a whole training function: rates, steps, losses, final weights, average, rows, validation.

The recorded batches are fed to the real trainer under the real schedule; what is compared in `schedule-*`
cases is the schedule alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fidelity.harness import Case, architecture_text, assert_close, cases, fill_recipe
from tests.support.loops import (
    ListLoader,
    NoOutput,
    RecordingPrecision,
    batch_of,
    build_trainer,
    matched,
    no_validation,
    toy_items,
)
from yolocore.data.dataset import ValSamples
from yolocore.data.files import Sample
from yolocore.data.images import ImageStore
from yolocore.data.loader import ValLoader
from yolocore.eval.validate import ValidationResult, validate
from yolocore.loss.detection import BatchTargets, DetectionLoss, scale_gains
from yolocore.model.build import build_network
from yolocore.model.fuse import folded_copy
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.config import parse_config
from yolocore.spec.plan import plan_architecture
from yolocore.train.ema import Ema
from yolocore.train.optim import build_optimizer
from yolocore.train.schedule import Schedule, scaled_weight_decay
from yolocore.train.trainer import Trainer

SIDE = 64
RATES, MEASURED_F32 = 1e-6, 50
FLOOR = 1e-6  # float32 itself


class Recorder:
    """A loss that notes rates and losses of every iteration, for a case's table."""

    def __init__(self, loss: DetectionLoss, optimizer: torch.optim.Optimizer) -> None:
        self.loss, self.optimizer = loss, optimizer
        self.losses: list[list[float]] = []
        self.rates: list[list[float]] = []

    @property
    def balance(self) -> list[float]:
        return self.loss.balance

    def __call__(self, maps: list[Tensor], targets: BatchTargets) -> tuple[Tensor, Tensor]:
        total, items = self.loss(maps, targets)
        self.losses.append([*total.tolist(), *items.tolist()])
        groups = self.optimizer.param_groups
        momentum = groups[0]["momentum"] if "momentum" in groups[0] else groups[0]["betas"][0]
        self.rates.append([*(group["lr"] for group in groups), momentum])
        return total, items


class Replay:
    """One case, set up and run."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, meta = case, case.meta
        self.hyp = parse_config({"preset": "no-augmentation", "hyp": meta["hyp"]}).hyp
        self.network = network_of(case)
        self.items = toy_items(case)
        batches = self._batches()
        self.per_epoch = len(batches) // meta["epochs"]
        optimizer = build_optimizer(
            self.network,
            name=meta.get("optimizer", "SGD"),
            lr=self.hyp.lr0,
            momentum=self.hyp.momentum,
            weight_decay=scaled_weight_decay(self.hyp.weight_decay, meta["bs"], 64),
        )
        self.recorder = Recorder(self._loss(), optimizer)
        self.precision = RecordingPrecision()
        self.output = NoOutput()
        self.ema = Ema(self.network)
        self.folder = folder
        self.trainer: Trainer = build_trainer(
            self.network,
            ema=self.ema,
            optimizer=optimizer,
            precision=self.precision,
            schedule=self._schedule(),
            loss=self.recorder,
            loader=ListLoader(batches, self.per_epoch),
            batches_per_epoch=self.per_epoch,
            epochs=meta["epochs"],
            evaluate=self._evaluate,
            output=self.output,
        )

    def _schedule(self) -> Schedule:
        meta, hyp = self.case.meta, self.hyp
        return Schedule(
            epochs=meta["epochs"],
            batches_per_epoch=self.per_epoch,
            batch=meta["bs"],
            nominal_batch=64,
            kind="cosine" if meta.get("cos_lr") else "linear",
            lr0=hyp.lr0,
            lrf=hyp.lrf,
            momentum=hyp.momentum,
            warmup_epochs=hyp.warmup_epochs,
            warmup_min_batches=100,
            warmup_momentum=hyp.warmup_momentum,
            warmup_bias_lr=hyp.warmup_bias_lr,
        )

    def _loss(self) -> DetectionLoss:
        strides, scaled = self.network.strides.tolist(), self.case.result["hyp_scaled"]
        gains = scale_gains(
            self.hyp.box, self.hyp.obj, self.hyp.cls, len(strides), self.case.meta["nc"], SIDE
        )
        assert list(gains) == pytest.approx([scaled[name] for name in ("box", "obj", "cls")])
        return DetectionLoss(num_classes=self.case.meta["nc"], strides=strides, **gains._asdict())

    def _batches(self) -> list[Any]:
        """Return the recorded batches, with the recorded targets where the case has them."""
        rows = self.case.outputs.get("targets_all")
        starts = np.cumsum([0, *self.case.result["targets_rows"]])
        batches = []
        for number, order in enumerate(self.case.result["order"]):
            batch = batch_of([self.items[i] for i in order], self.network, self.hyp.anchor_t)
            if rows is not None:
                targets = torch.from_numpy(rows[starts[number] : starts[number + 1]])
                batch = matched(batch, targets, self.network, self.hyp.anchor_t)
            batches.append(batch)
        return batches

    def _evaluate(self, network: Network) -> ValidationResult:
        """Validate in the last epoch only, as the recorded run did."""
        last = self.trainer.position.epoch + 1 == self.case.meta["epochs"]
        if not last or not self.case.meta.get("trajectory"):
            return no_validation(network)
        return validate(
            folded_copy(network),
            self._val_loader(),
            loss=self.recorder.loss,
            num_classes=self.case.meta["nc"],
        )

    def _val_loader(self) -> ValLoader:
        samples = []
        for number, item in enumerate(self.items):
            path = self.folder / f"{number}.png"
            cv2.imwrite(str(path), item.image)
            samples.append(Sample(path, "val", SIDE, SIDE, item.rows, (None,) * len(item.rows), path.name))
        store = ImageStore(samples, SIDE, area=True)
        return ValLoader(
            ValSamples(samples, store, SIDE, 2 * self.case.meta["bs"]),
            num_threads=0,
            finish_batch=lambda batch: matched(batch, batch.targets, self.network, self.hyp.anchor_t),
        )


def network_of(case: Case) -> Network:
    plan = plan_architecture(parse_architecture(architecture_text(case.meta)), num_classes=case.meta["nc"])
    network = build_network(plan)
    fill_recipe(network.state_dict(), case.meta.get("salt", ""))
    return network.half().float()


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check_rates(replay: Replay) -> None:
    table = replay.case.outputs["iters"]
    assert_close(np.array(replay.recorder.rates), table[:, 1:5], RATES, "rates")
    assert len(replay.precision.norms) == int(table[:, 5].sum())
    assert replay.ema.updates == replay.case.result["ema_updates"]


def check_training(replay: Replay) -> None:
    expected, result = replay.case.outputs, replay.case.result
    deviation = result["self_deviation_other_kernels"]
    losses = np.array(replay.recorder.losses)
    for step, allowed in enumerate(deviation["loss_rel_per_iter"]):
        tolerance = MEASURED_F32 * max(allowed, FLOOR)
        assert losses[step] == pytest.approx(expected["loss_total_box_obj_cls"][step], rel=tolerance), step
    norms = expected["grad_norm_before_clip"]
    assert replay.precision.norms == pytest.approx(norms[norms >= 0], rel=1e-3)
    tolerance = MEASURED_F32 * max(deviation["final_l2_rel_max"], FLOOR)
    for name, state in (("final", replay.network.state_dict()), ("ema", replay.ema.network.state_dict())):
        for reduce in (torch.norm, torch.sum):
            values = [float(reduce(state[key].double())) for key in result["keys"]]
            label = "l2" if reduce is torch.norm else "sum"
            assert_close(np.array(values), expected[f"{name}_{label}"], tolerance, f"{name} {label}")


def check_rows(replay: Replay) -> None:
    for row, expected in zip(replay.output.rows, replay.case.result["epochs"], strict=True):
        assert row.epoch == expected[0]
        train = [row.train.box, row.train.obj, row.train.cls]
        assert train == pytest.approx(expected[1:4], rel=1e-4)
        assert row.lr == pytest.approx(expected[11:14], rel=1e-5)
    last, expected = replay.output.rows[-1], replay.case.result["epochs"][-1]
    assert last.val is not None
    assert [last.val.box, last.val.obj, last.val.cls] == pytest.approx(expected[8:11], rel=1e-4)
    found = [last.precision, last.recall, last.map50, last.map50_95]
    assert found == pytest.approx(expected[4:8], rel=0.02, abs=1e-5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", cases("trajectory"), ids=str)
def test_trajectory(case: Case, tmp_path: Path) -> None:
    replay = Replay(case, tmp_path)
    replay.trainer.run()
    check_rates(replay)
    if case.meta.get("trajectory"):
        check_training(replay)
        check_rows(replay)
