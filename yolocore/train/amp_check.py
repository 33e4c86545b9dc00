"""Whether a network can be trained in reduced precision, asked of itself before a run begins.

A forward pass that looks right does not tell: ranges are left in training mode, in the loss and on the way
back. So one made-up batch goes all the way in fp32 and in the reduced precision, and nothing of it remains:
weights, buffers, gradients, modes, random states and the run's scaler stay bit for bit as they were. It must
not know the run, the loader or what a failure leads to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolocore.data.draws import generator
from yolocore.loss.detection import BatchTargets, to_tensors
from yolocore.ops.assign import Floats, assign_targets
from yolocore.train.precision import Precision
from yolocore.train.watch import SMALLEST_SCALE

LossFunction = Callable[[Any, Any], tuple[Tensor, Tensor]]

LEAST_SIDE_PX = 128
# Ten times and more what rounding alone was measured to do to yolov5n at 128 pixels, with random and with
# published weights: loss 0.0025 (fp16) and 0.01 (bf16), outputs 0.002 and 0.02. Too strict a check costs a
# sound run its speed; what a lenient one lets through is met by the watch over the losses.
LOSS_TOLERANCE = {"fp16": 0.05, "bf16": 0.1}
OUTPUT_TOLERANCE = {"fp16": 0.05, "bf16": 0.2}


@dataclass(frozen=True)
class AmpFigures:
    """What was measured; NaN where the check did not get that far.

    `loss_difference` and `output_difference` are relative to fp32. `num_overflows` halvings of the scale were
    needed before the gradients were finite, down to `scale`; both say nothing without a scaler.
    """

    loss_fp32: float = math.nan
    loss_reduced: float = math.nan
    loss_difference: float = math.nan
    output_difference: float = math.nan
    num_overflows: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class AmpCheck:
    """The verdict, and the reason where it is no; `sound_in_fp32` is False if fp32 fails in the same way."""

    ok: bool
    reason: str | None
    figures: AmpFigures
    sound_in_fp32: bool = True


@dataclass(frozen=True)
class SyntheticBatch:
    """Made-up images (b, 3, h, w) uint8 RGB in channels-last memory, and their matched boxes."""

    images: Tensor
    targets: BatchTargets


@dataclass(frozen=True)
class _Rehearsal:
    """One batch all the way in one precision: decoded outputs (b, n, outputs), loss, and what broke where."""

    outputs: Tensor
    loss: float
    num_overflows: int
    scale: float
    fault: str | None


def check_side(stride: int) -> int:
    """Return the side in pixels that suffices for the check: a multiple of the network's largest stride.

    Twice the stride at least, so that the deepest norm sees more than one cell an image.
    """
    return max(2, math.ceil(LEAST_SIDE_PX / stride)) * stride


def synthetic_batch(
    num_images: int,
    size_hw: tuple[int, int],
    *,
    strides: Sequence[int],
    anchors_grid: Floats,
    num_classes: int,
    anchor_t: float,
    device: torch.device,
    boxes_per_image: int = 16,
    noise: bool = True,
    seed: int = 0,
) -> SyntheticBatch:
    """Make images of noise, or empty ones, with random boxes of 8 pixels up to the whole side.

    `anchors_grid` (levels, anchors, 2) in grid units. The same arguments give the same batch, and no global
    random state is asked.
    """
    height, width = size_hw
    rng = generator(seed, 0, 0, "synthetic")
    shape = (num_images, height, width, 3)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8) if noise else np.zeros(shape, np.uint8)
    count = num_images * boxes_per_image
    smallest = np.array([8 / width, 8 / height])
    sizes = smallest ** rng.uniform(0, 1, (count, 2))  # log-uniform: each level gets its share
    centres = sizes / 2 + rng.uniform(0, 1, (count, 2)) * (1 - sizes)
    numbers = np.repeat(np.arange(num_images), boxes_per_image)
    classes = rng.integers(0, num_classes, count)
    targets = np.column_stack((numbers, classes, centres, sizes)).astype(np.float32)
    shapes = [(height // stride, width // stride) for stride in strides]
    matches = assign_targets(targets, anchors_grid, shapes, anchor_t)
    return SyntheticBatch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device), to_tensors(matches, device)
    )


@contextmanager
def untouched(network: nn.Module, loss: Any, device: torch.device) -> Iterator[None]:
    """Put back afterwards, bit for bit, what a training pass changes, whatever happens inside.

    That is the network's buffers, gradients and modes, the loss's `balance` if it has one, and the global
    random states. Inside, the network begins without gradients. Weights are nobody's to change here.
    """
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    balance = getattr(loss, "balance", None)
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        if balance is not None:
            loss.balance = balance


def check_amp(
    network: nn.Module, loss: LossFunction, precision: Precision, images: Tensor, targets: Any
) -> AmpCheck:
    """Take one batch through the network in fp32 and in `precision` and compare.

    `images` (b, 3, h, w) uint8 on the device, `targets` as `loss` takes them. Sound are: finite and near
    outputs in evaluation mode; in training mode a finite loss near that of fp32, finite running statistics,
    and finite gradients at some scale from the scaler's present one down to 1, since to find that one is the
    scaler's ordinary business. In fp32 there is nothing to check.
    """
    if precision.name == "fp32":
        return AmpCheck(True, None, AmpFigures())
    full = _rehearse(network, loss, Precision("fp32", precision.device), 1.0, images, targets)
    figures = AmpFigures(loss_fp32=full.loss)
    if full.fault is not None:
        reason = f"{full.fault} in fp32 as well, so the precision is not the cause"
        return AmpCheck(False, reason, figures, sound_in_fp32=False)
    reduced = _rehearse(network, loss, precision, precision.scale or 1.0, images, targets)
    figures = replace(
        figures,
        loss_reduced=reduced.loss,
        loss_difference=abs(reduced.loss - full.loss) / max(abs(full.loss), 1e-12),
        output_difference=_distance(reduced.outputs, full.outputs),
        num_overflows=reduced.num_overflows,
        scale=reduced.scale,
    )
    fault = f"{reduced.fault} in {precision.name}" if reduced.fault else _drift(precision.name, figures)
    return AmpCheck(fault is None, fault, figures)


def _drift(name: str, figures: AmpFigures) -> str | None:
    if not figures.loss_difference <= LOSS_TOLERANCE[name]:  # so that NaN is far
        return (
            f"the loss in {name} is {figures.loss_reduced:.5g}, "
            f"{figures.loss_difference:.1%} off the {figures.loss_fp32:.5g} of fp32"
        )
    if not figures.output_difference <= OUTPUT_TOLERANCE[name]:
        return f"the outputs in {name} are {figures.output_difference:.1%} off those of fp32"
    return None


def _distance(outputs: Tensor, wanted: Tensor) -> float:
    """Return the larger of the relative L2 distances of boxes (b, n, 4) and of the scores behind them."""
    difference = outputs - wanted
    parts = [
        torch.linalg.vector_norm(difference[..., columns]) / torch.linalg.vector_norm(wanted[..., columns])
        for columns in (slice(0, 4), slice(4, None))
    ]
    return torch.stack(parts).max().item()


def _rehearse(
    network: nn.Module, loss: LossFunction, precision: Precision, scale: float, images: Tensor, targets: Any
) -> _Rehearsal:
    """Do one forward pass in evaluation mode, then a whole training pass, until something is not finite."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    pixels = images.to(next(network.parameters()).dtype) / 255
    with untouched(network, loss, precision.device):
        network.eval()
        with torch.no_grad(), precision.autocast():
            outputs = network(pixels)[0].float()
        if not _finite(outputs):
            fault = "the outputs are not finite" + _culprit(network, precision, pixels)
            return _Rehearsal(outputs, math.nan, 0, scale, fault)

        network.train()
        with precision.autocast():
            maps = network(pixels)
        total, _ = loss(maps, targets)
        statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        for what, value in (("loss is", total), ("norms' statistics are", statistics)):
            if not _finite(value):
                fault = f"the {what} not finite" + _culprit(network, precision, pixels)
                return _Rehearsal(outputs, total.item(), 0, scale, fault)

        num_overflows = 0
        while not _has_finite_gradients(total * scale, weights):
            if precision.scale is None or scale / 2 < SMALLEST_SCALE:
                fault = f"the gradients are not finite at a scale of {scale:g}"
                return _Rehearsal(outputs, total.item(), num_overflows, scale, fault)
            scale /= 2
            num_overflows += 1
        return _Rehearsal(outputs, total.item(), num_overflows, scale, None)


def _has_finite_gradients(scaled: Tensor, weights: list[nn.Parameter]) -> bool:
    """Go back through a graph, which is kept for another try; no `.grad` is written."""
    gradients = torch.autograd.grad(scaled, weights, retain_graph=True, allow_unused=True)
    return _finite([gradient for gradient in gradients if gradient is not None])


def _culprit(network: nn.Module, precision: Precision, pixels: Tensor) -> str:
    """Return where, in the network's present mode, numbers first are not finite, as the end of a sentence."""
    found: list[str] = []

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(hook_for(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad(), precision.autocast():
            network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return f", beginning at {found[0]}," if found else ""


def _finite(value: Any) -> bool:
    """Tell whether a tensor, or all of a nest of lists and tuples, is finite; reads the device."""
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    if isinstance(value, list | tuple):
        return all(_finite(part) for part in value)
    return True
