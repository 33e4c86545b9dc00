"""What a rank does in tests of several processes: importable, so that a fresh process finds it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.support.loops import CPU, batch_of, no_validation
from tests.support.shapes import TINY_MODEL, draw_shapes
from yolocore.data.collate import Batch, Item
from yolocore.errors import DatasetError, Problem
from yolocore.eval.validate import ValidationResult
from yolocore.loss.detection import DetectionLoss, to_tensors
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.events import TrainEvent
from yolocore.spec.plan import plan_architecture
from yolocore.train.accord import Accord
from yolocore.train.distributed import Group, wrap
from yolocore.train.ema import Ema
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision
from yolocore.train.protocols import Interrupted

WORLD_SIZE = 2
PER_RANK = 2
NUM_STEPS = 3
ACCUMULATE = 2
Forward = Callable[[Tensor], Any]


def tiny_network(seed: int = 0) -> Network:
    """Return a small detector."""
    return build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2), seed=seed)


def items(count: int, *, seed: int, alike: bool = False) -> list[Item]:
    """Return pictures with rows; where `alike`, the halves differ in pictures alone."""
    rng = np.random.default_rng(seed)
    drawn = [draw_shapes(rng, 64) for _ in range(count)]
    rows = [np.array(row, dtype=np.float32) for _, row in drawn]
    if alike:
        rows = [*rows[: count // 2], *rows[: count // 2]]
    return [Item(image, row, f"{n}.png") for n, ((image, _), row) in enumerate(zip(drawn, rows, strict=True))]


def tiny_loss(network: Network) -> DetectionLoss:
    """Return the loss of a tiny network with common gains."""
    return DetectionLoss(num_classes=2, strides=network.strides.tolist(), box=0.05, obj=1.0, cls=0.5)


def loss_of(
    forward: Forward, network: Network, batch: Batch, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the total of a batch."""
    assert batch.matches is not None
    total, _ = tiny_loss(network)(forward(batch.images.to(dtype) / 255), to_tensors(batch.matches, CPU))
    return total


def gradients_of(forward: Forward, network: Network, batch: Batch, factor: float = 1.0) -> dict[str, Tensor]:
    """Return the gradients of a batch's total times `factor`."""
    network.zero_grad()
    (loss_of(forward, network, batch, dtype=torch.float64) * factor).backward()
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


def exact_network() -> Network:
    """Return a network in float64 with batch norms that judge every picture alike."""
    network = tiny_network().double().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def exact_batch(part: list[Item], network: Network) -> Batch:
    """Collate for a network in float64."""
    return batch_of(part, network, 4.0, dtype=torch.float64)


def share(all_items: list[Item], rank: int) -> list[Item]:
    """Return a rank's half."""
    half = len(all_items) // WORLD_SIZE
    return all_items[rank * half : (rank + 1) * half]


def check_everything(group: Group, folder: Path) -> None:
    """Do all that needs two processes, and leave what came of it in the folder."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"said": group.broadcast({"rank": group.rank})}
    group.barrier()
    for name, alike in (("halves", False), ("alike", True)):
        network = exact_network()
        batch = exact_batch(share(items(4, seed=1, alike=alike), group.rank), network)
        found[name] = gradients_of(wrap(network, CPU), network, batch, WORLD_SIZE)
    found.update(_a_few_steps(group))
    found["fp16"] = _one_overflow(group, spoilt=1)
    found["accord"] = _accord(group)
    torch.save(found, folder / f"{group.rank}.pt")


def _accord(group: Group) -> dict[str, Any]:
    """Let two networks that have drifted apart be judged, then a wish be made in rank 0's validation."""
    events: list[TrainEvent] = []

    def interrupted(network: Network) -> ValidationResult:
        raise Interrupted("pause")

    answers: list[Any] = []
    for judge in (no_validation, interrupted):
        accord = Accord(
            group,
            loss=tiny_loss(tiny_network()),
            balance_moves=True,
            poll=lambda: "stop" if group.rank == 0 else None,
            evaluate=judge if group.rank == 0 else None,
            emit=events.append,
        )
        answers.append(accord.poll())
        try:
            answers.append(accord.evaluate(tiny_network(seed=group.rank)).num_images)
        except Interrupted as interruption:
            answers.append(interruption.wish)
    return {"answers": answers, "told": [event.type for event in events]}


def _a_few_steps(group: Group) -> dict[str, Any]:
    network = tiny_network(seed=group.rank).train()  # rank 0's start counts
    forward = wrap(network, CPU)
    ema = Ema(network)
    optimizer = build_optimizer(network, name="SGD", lr=0.05, momentum=0.9, weight_decay=5e-4)
    precision = Precision("fp32", CPU)
    norms = []
    for number in range(NUM_STEPS * ACCUMULATE):
        part = share(items(WORLD_SIZE * PER_RANK, seed=number), group.rank)
        precision.backward(loss_of(forward, network, batch_of(part, network, 4.0)) * WORLD_SIZE)
        if number % ACCUMULATE == ACCUMULATE - 1:
            norms.append(precision.step(optimizer, list(network.parameters()), 10.0))
            optimizer.zero_grad()
            ema.update()
    return {
        "parameters": dict(network.named_parameters()),
        "momentum": optimizer.state_dict()["state"],
        "average": dict(ema.network.named_parameters()),
        "norms": torch.stack(norms),
        "moved": not torch.equal(next(network.parameters()), next(tiny_network().parameters())),
    }


def _one_overflow(group: Group, spoilt: int) -> dict[str, Any]:
    """Let the gradients of one rank overflow once, then none."""
    network = tiny_network().train()
    forward = wrap(network, CPU)
    optimizer = build_optimizer(network, name="SGD", lr=0.01, momentum=0.9, weight_decay=0)
    precision = Precision("fp16", CPU)
    precision.load_state_dict({**precision.state_dict(), "scale": 256.0})
    weights, scales, finite = [], [precision.scale], []
    for number in range(2):
        with _steep(network) if number == 0 and group.rank == spoilt else _as_it_is():
            batch = batch_of(share(items(4, seed=9), group.rank), network, 4.0)
            with precision.autocast():
                maps = forward(batch.images / 255)
            assert batch.matches is not None
            total, _ = tiny_loss(network)(maps, to_tensors(batch.matches, CPU))
            finite.append(bool(torch.isfinite(total)))
            precision.backward(total * WORLD_SIZE)
        precision.step(optimizer, list(network.parameters()), 10.0)
        optimizer.zero_grad()
        scales.append(precision.scale)
        weights.append(next(network.parameters()).detach().clone())
    start = next(tiny_network().parameters()).detach()
    return {"start": start, "weights": weights, "scales": scales, "finite": finite}


class SteepAt(torch.autograd.Function):
    """Leaves a value as it is and makes its gradient infinite."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


@contextmanager
def _steep(network: Network) -> Iterator[None]:
    handle = network.model[2].register_forward_hook(lambda module, inputs, output: SteepAt.apply(output))
    yield
    handle.remove()


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def fail_by_name(group: Group, rank: int) -> None:
    """Raise a named error on one rank while the others wait for it."""
    if group.rank == rank:
        raise DatasetError(
            "no image", code="NO_LABELS", place="train", value="7", problems=[Problem("A", "b", row=3)]
        )
    group.broadcast(None)
    group.barrier()


def fail_by_mistake(group: Group) -> None:
    """Raise an error without a name."""
    raise AssertionError("a thing that cannot be")


def be_killed(group: Group) -> None:
    """End as a process does that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(group: Group) -> None:
    """Wait for what rank 0 never says."""
    group.broadcast(None)


def do_nothing(group: Group) -> None:
    """End at once."""
