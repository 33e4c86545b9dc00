"""Golden training loops, run by the real trainer in double precision: losses, norms, final weights, average.

The case's constant rates, batches and loss factor are put in place of schedule, loader and loss; everything
between them is what trains for real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fidelity.harness import Case, architecture_text, assert_close, cases, fill_recipe
from tests.support.loops import ListLoader, RecordingPrecision, batch_of, build_trainer, toy_items
from yolocore.loss.detection import BatchTargets, DetectionLoss
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.optim import build_optimizer
from yolocore.train.schedule import Point

TOLERANCE = 1e-5
TOLERANCE_F32 = 20


class ConstantRates:
    """The same rates for every batch."""

    def __init__(self, lr: float, momentum: float, accumulate: int) -> None:
        self.point = Point((lr, lr, lr), momentum, accumulate)

    def at(self, counter: int) -> Point:
        return self.point


class RecordingLoss:
    """Multiplies the total by a factor and keeps every number."""

    def __init__(self, loss: DetectionLoss, factor: float) -> None:
        self.loss, self.factor = loss, factor
        self.rows: list[list[float]] = []

    @property
    def balance(self) -> list[float]:
        return self.loss.balance

    @balance.setter
    def balance(self, values: list[float]) -> None:
        self.loss.balance = values

    def __call__(self, maps: list[Tensor], targets: BatchTargets) -> tuple[Tensor, Tensor]:
        total, items = self.loss(maps, targets)
        total = total * self.factor
        self.rows.append([*total.tolist(), *items.tolist()])
        return total, items


def network_of(case: Case, dtype: torch.dtype) -> Network:
    plan = plan_architecture(parse_architecture(architecture_text(case.meta)), num_classes=case.meta["nc"])
    network = build_network(plan)
    fill_recipe(network.state_dict(), case.meta.get("salt", ""))
    return network.to(dtype)


def run(case: Case, dtype: torch.dtype, folder: Path) -> tuple[Any, RecordingLoss, RecordingPrecision]:
    meta, hyp = case.meta, case.result["hyp"]
    network = network_of(case, dtype)
    loss = RecordingLoss(
        DetectionLoss(
            num_classes=meta["nc"],
            strides=network.strides.tolist(),
            **{
                name: hyp[name]
                for name in ("box", "obj", "cls", "cls_pw", "obj_pw", "label_smoothing", "fl_gamma")
            },
        ),
        meta.get("loss_factor", 1.0),
    )
    items = toy_items(case)
    size = meta.get("bs", len(items))
    num_batches = len(items) // size
    accumulate = meta.get("accumulate", 1)
    precision = RecordingPrecision()
    trainer = build_trainer(
        network,
        optimizer=build_optimizer(
            network,
            name=meta["optimizer"],
            lr=meta["lr"],
            momentum=meta["momentum"],
            weight_decay=meta["wd"],
        ),
        schedule=ConstantRates(meta["lr"], meta["momentum"], accumulate),
        loss=loss,
        precision=precision,
        loader=ListLoader(
            [
                batch_of(
                    items[s % num_batches * size :][:size], network, hyp["anchor_t"], index=s, dtype=dtype
                )
                for s in range(meta["steps"])
            ]
        ),
        batches_per_epoch=meta["steps"],
    )
    trainer.run()
    return trainer, loss, precision


def sums(state: dict[str, Tensor], keys: list[str], reduce: Callable[[Tensor], Tensor]) -> np.ndarray:
    return np.array([float(reduce(state[key].double())) for key in keys])


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", cases("loop"), ids=str)
def test_loop(case: Case, tmp_path: Path) -> None:
    expected, result = case.outputs, case.result
    trainer, loss, precision = run(case, torch.float64, tmp_path)
    assert_close(np.array(loss.rows), expected["f64_loss"], TOLERANCE, "losses")
    norms = iter(precision.norms)
    stepped = [next(norms) if step else -1.0 for step in expected["f64_grad_norm_before_clip"] >= 0]
    assert not list(norms), "the trainer stepped more often than the case"
    assert_close(np.array(stepped), expected["f64_grad_norm_before_clip"], TOLERANCE, "norms")
    for name, state in (("final", trainer.network), ("ema", trainer.ema.network)):
        values, keys = state.state_dict(), result["keys"]
        assert_close(sums(values, keys, torch.norm), expected[f"f64_{name}_l2"], TOLERANCE, f"{name} l2")
        assert_close(sums(values, keys, torch.sum), expected[f"f64_{name}_sum"], TOLERANCE, f"{name} sum")

    _, loss, _ = run(case, torch.float32, tmp_path)
    for step, (row, wanted) in enumerate(zip(loss.rows, expected["f64_loss"], strict=True)):
        allowed = TOLERANCE_F32 * max(result["f32_rel_dev_per_step"][step], 1e-6)
        assert row[0] == pytest.approx(float(wanted[0]), rel=allowed), f"float32, step {step}"
