"""Tricks of the step measured on and off: network, precision, loss, optimizer and average on made batches.

One thread, processor seconds, in turn. It must not know the loaders or how figures are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines.loss import TextbookLoss
from benchmarks.baselines.optim import TextbookEma, textbook_sgd
from benchmarks.counting import Counting
from benchmarks.ours import CPU
from benchmarks.parts_run import both_losses, made_maps, made_network, made_targets
from benchmarks.tricks_accuracy import grouped
from benchmarks.tricks_made import in_turn
from benchmarks.tricks_report import Compared
from yolocore.data.place import MultiScale
from yolocore.loss.detection import DetectionLoss, to_tensors
from yolocore.model.build import build_network
from yolocore.model.fuse import folded_copy
from yolocore.model.layers import join_norms
from yolocore.model.network import Network
from yolocore.ops.assign import assign_targets
from yolocore.spec.zoo import zoo_text
from yolocore.train.ema import Ema
from yolocore.train.freeze import freeze, hold
from yolocore.train.inputs import plan_run
from yolocore.train.islands import Islands
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision, PrecisionName

BOXES, CLASSES = 14, 3
ISLAND = "model.2"
FROZEN_ROWS = range(10)


@dataclass(frozen=True)
class Sizes:
    """How much is measured: pairs, image side in pixels, images of a batch."""

    pairs: int
    imgsz: int
    batch: int

    @property
    def step(self) -> str:
        """A step in words."""
        return f"forward, loss, backward; yolov5n, {self.imgsz} px, batch {self.batch}"


class Step:
    """Forward, loss and backward of a network on a made batch in one precision and memory layout."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        precision: PrecisionName = "fp32",
        network: Network | None = None,
        hw: tuple[int, int] | None = None,
        channels_last: bool = True,
        joined: bool = True,
    ) -> None:
        self.network = network or made_network(sizes.imgsz)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = self.network.to(memory_format=layout).train()
        if joined:
            join_norms(self.network)
        self.precision = Precision(precision, CPU)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((sizes.batch, 3, *(hw or (sizes.imgsz, sizes.imgsz))), generator=generator)
        self.images = images.contiguous(memory_format=layout)
        ours, _ = both_losses(self.network, sizes.imgsz, CLASSES)
        gains = ours.gains
        self.loss = DetectionLoss(
            num_classes=CLASSES,
            strides=ours.strides,
            box=gains.box,
            obj=gains.obj,
            cls=gains.cls,
        )
        self.matches = self._matches(sizes.batch)

    def __call__(self) -> None:
        """Do it; gradients are thrown away before."""
        for parameter in self.network.parameters():
            parameter.grad = None
        self.add()

    def add(self) -> None:
        """Do it and add to the gradients."""
        with self.precision.autocast():
            maps = self.network(self.images)
        total, _ = self.loss(maps, to_tensors(self.matches))
        self.precision.backward(total)

    def _matches(self, batch: int) -> Any:
        height, width = self.images.shape[2:]
        shapes = [(int(height // stride), int(width // stride)) for stride in self.network.strides.tolist()]
        targets = made_targets(batch, BOXES, CLASSES).numpy()
        return assign_targets(targets, self.network.head.anchors.numpy(), shapes, 4.0)


def channels_last(sizes: Sizes) -> list[Compared]:
    """Compare memory layouts."""
    on, off = Step(sizes, joined=False), Step(sizes, channels_last=False, joined=False)
    return [_compared(sizes, "channels-last", "channels-last", "planes", sizes.step, on, off)]


def norms(sizes: Sizes) -> list[Compared]:
    """Compare batch norm and SiLU as one operation with the two modules."""
    on, off = Step(sizes), Step(sizes, joined=False)
    return [
        _compared(sizes, "norm and activation in one", "one operation", "two modules", sizes.step, on, off)
    ]


def precision(sizes: Sizes) -> list[Compared]:
    """Compare reduced precisions with fp32, on the CPU."""
    few = min(sizes.pairs, 2)
    found = []
    names: Sequence[PrecisionName] = ("bf16", "fp16")
    for name in names:
        on_s, off_s = in_turn(few, Step(sizes, precision=name), Step(sizes))
        found.append(Compared("mixed precision", f"{name} on this CPU", "fp32", sizes.step, on_s, off_s))
    return found


def islands(sizes: Sizes) -> list[Compared]:
    """Compare a bf16 step with and without a module in fp32."""
    on, off = Step(sizes, precision="bf16"), Step(sizes, precision="bf16")
    Islands().add(ISLAND, on.network)
    on_s, off_s = in_turn(min(sizes.pairs, 2), on, off)
    return [Compared("fp32 islands", f"{ISLAND} in fp32", "none", f"bf16: {sizes.step}", on_s, off_s)]


def accumulation(sizes: Sizes) -> list[Compared]:
    """Compare one optimizer step in four batches with one in each."""
    step, used = Step(sizes), Precision("fp32", CPU)
    finish = _finish(step.network, used)

    def on() -> None:
        for _ in range(4):
            step.add()
        finish()

    def off() -> None:
        for _ in range(4):
            step.add()
            finish()

    what = "four batches with clipping, SGD and average"
    return [_compared(sizes, "accumulation", "a step in four batches", "a step a batch", what, on, off)]


def average(sizes: Sizes) -> list[Compared]:
    """Compare the average over lists with the textbook's."""
    network = made_network(sizes.imgsz)
    ema, other = Ema(network), TextbookEma(network)
    off: Callable[[], Any] = lambda: other.update(network)  # noqa: E731
    what = "one update, yolov5n"
    return [_compared(sizes, "EMA", "lists made once", "entry by entry", what, ema.update, off, times=5)]


def optimizer(sizes: Sizes) -> list[Compared]:
    """Compare the fused optimizer with torch's default."""
    used = Precision("fp32", CPU)
    on = _optimizer_part(made_network(sizes.imgsz), used)
    off = _optimizer_part(made_network(sizes.imgsz), used, plain=True)
    what = "clipping and SGD, yolov5n"
    return [_compared(sizes, "fused optimizer", "fused", "torch's default", what, on, off, times=5)]


def groups(sizes: Sizes) -> list[Compared]:
    """Compare the model with grouped down-sampling convolutions to the model itself."""
    text = zoo_text("yolov5n")
    plan = plan_run(grouped(text), name="grouped.yaml", num_classes=CLASSES, imgsz=sizes.imgsz)
    on, off = Step(sizes, network=build_network(plan, seed=0)), Step(sizes)
    few, many = (sum(one.numel() for one in step.network.parameters()) / 1e6 for step in (on, off))
    words = f"groups, {few:.2f} M parameters", f"dense, {many:.2f} M parameters"
    return [_compared(sizes, "grouped convolutions", *words, sizes.step, on, off)]


def routing(sizes: Sizes) -> list[Compared]:
    """Compare what a forward without gradients holds at most with what all rows give, in bytes."""
    network = made_network(sizes.imgsz)
    outputs: list[int] = []
    hooks = [
        row.register_forward_hook(lambda _m, _i, out: outputs.append(_bytes(out))) for row in network.model
    ]
    with torch.no_grad():
        network(torch.zeros(sizes.batch, 3, sizes.imgsz, sizes.imgsz))
    for hook in hooks:
        hook.remove()
    kept: dict[int, int] = {}
    most = 0
    for index, route in enumerate(network._routes):
        most = max(most, sum(kept.values()) + outputs[index])
        for source in route.drop:
            kept.pop(source)
        if route.keep:
            kept[index] = outputs[index]
    what = f"maps held at once without gradients, yolov5n, {sizes.imgsz} px, batch {sizes.batch}"
    on, off = [float(most)], [float(sum(outputs))]
    return [Compared("routing", "what later rows need", "all rows", what, on, off, unit="MB")]


def multi_scale(sizes: Sizes) -> list[Compared]:
    """Compare batches of each size that can be drawn with as many of the size itself."""
    network = made_network(sizes.imgsz)
    drawn = MultiScale(sizes.imgsz, 32).sizes
    steps = [Step(sizes, network=network, hw=(side, side)) for side in drawn]
    fixed = Step(sizes, network=network)

    def on() -> None:
        for step in steps:
            step()

    def off() -> None:
        for _ in steps:
            fixed()

    words = f"each of {drawn[0]} to {drawn[-1]} px once", f"{sizes.imgsz} px as often"
    return [_compared(sizes, "multi-scale", *words, f"{len(steps)} batches", on, off)]


def frozen(sizes: Sizes) -> list[Compared]:
    """Compare a step with a frozen backbone to one in which all learns."""
    on, off = Step(sizes), Step(sizes)
    hold(freeze(on.network, FROZEN_ROWS))
    return [_compared(sizes, "freeze", "rows 0 to 9 frozen", "none", sizes.step, on, off)]


def loss(sizes: Sizes) -> list[Compared]:
    """Compare matched cells that come with the batch with matching in the loss: time and operations."""
    network = made_network(sizes.imgsz)
    ours, textbook = both_losses(network, sizes.imgsz, CLASSES)
    targets = made_targets(sizes.batch, BOXES, CLASSES)
    maps = made_maps(network, sizes.batch, sizes.imgsz, CLASSES)
    shapes = [(int(sizes.imgsz // stride),) * 2 for stride in network.strides.tolist()]
    matches = assign_targets(targets.numpy(), network.head.anchors.numpy(), shapes, 4.0)
    on: Callable[[], Any] = lambda: torch.autograd.backward(ours(maps, to_tensors(matches))[0])  # noqa: E731
    off = _textbook(textbook, maps, targets)
    what = f"loss forward and backward, batch {sizes.batch} with {BOXES} boxes each"
    words = "matched in the loader", "masks in the loss"
    few, many = [float(_operations(on))], [float(_operations(off))]
    return [
        _compared(sizes, "assignment in the loader", *words, what, on, off, times=5),
        Compared(
            "assignment in the loader", *words, f"operations, without views: {what}", few, many, unit=""
        ),
    ]


def folding(sizes: Sizes) -> list[Compared]:
    """Compare a forward of the folded copy that is validated with one of the average itself."""
    network = Step(sizes).network.eval()
    folded = folded_copy(network)
    images = Step(sizes).images

    @torch.no_grad()
    def on() -> None:
        folded(images)

    @torch.no_grad()
    def off() -> None:
        network(images)

    words = "batch norms folded", "as trained"
    return [_compared(sizes, "folded copy in validation", *words, "forward in evaluation mode", on, off)]


MEASURES: Mapping[str, Callable[[Sizes], list[Compared]]] = {
    "channels-last": channels_last,
    "norms": norms,
    "precision": precision,
    "islands": islands,
    "accumulation": accumulation,
    "average": average,
    "optimizer": optimizer,
    "grouped": groups,
    "routing": routing,
    "multi-scale": multi_scale,
    "freeze": frozen,
    "loss": loss,
    "folding": folding,
}


def _operations(way: Callable[[], Any]) -> int:
    with Counting() as counted:
        way()
    return counted.kernels


def _textbook(loss: TextbookLoss, maps: list[Tensor], targets: Tensor) -> Callable[[], Any]:
    plain = [raw.detach().contiguous().requires_grad_() for raw in maps]
    return lambda: torch.autograd.backward(loss(plain, targets)[0])


def _compared(
    sizes: Sizes,
    trick: str,
    on_words: str,
    off_words: str,
    what: str,
    on: Callable[[], Any],
    off: Callable[[], Any],
    *,
    times: int = 1,
    pairs: int | None = None,
) -> Compared:
    on_s, off_s = in_turn(pairs or sizes.pairs, on, off, times=times)
    return Compared(trick, on_words, off_words, what, on_s, off_s)


def _optimizer_part(network: Network, used: Precision, *, plain: bool = False) -> Callable[[], Any]:
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 1e-4)
    parameters = list(network.parameters())
    fused = build_optimizer(network, name="SGD", lr=0.01, momentum=0.937, weight_decay=0.0005)
    chosen = textbook_sgd(network, 0.01, 0.937, 0.0005) if plain else fused
    return lambda: used.step(chosen, parameters, 10.0)


def _finish(network: Network, used: Precision) -> Callable[[], None]:
    optimizer = build_optimizer(network, name="SGD", lr=0.001, momentum=0.937, weight_decay=0.0005)
    parameters, ema = list(network.parameters()), Ema(network)

    def finish() -> None:
        used.step(optimizer, parameters, 10.0)
        optimizer.zero_grad()
        ema.update()

    return finish


def _bytes(output: Any) -> int:
    if isinstance(output, Tensor):
        return output.nbytes
    return sum(_bytes(one) for one in output)
