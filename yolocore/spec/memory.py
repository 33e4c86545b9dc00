"""How much memory the maps of a network take, for training and for inference, from its plan.

Counted for training: every value one forward leaves for the backward pass: outputs of convolutions, of batch
norms and of activations, joined and enlarged maps, where the maxima of pools lie, attention weights. Counted
for inference: the outputs of rows that are alive while a row runs, its inputs and its own output included,
and the picture while it is needed. Not counted: parameters, gradients, optimizer state, scratch inside a row,
the allocator's slack. It must not know how rows compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from yolocore.spec.layers import Plan

BYTES_PER_VALUE = 4


@dataclass(frozen=True)
class Memory:
    """Bytes in fp32 for a batch; `alive_bytes` row by row, its largest is `inference_bytes` at `peak_row`."""

    batch: int
    training_bytes: int
    row_training_bytes: tuple[int, ...]
    inference_bytes: int
    peak_row: int
    alive_bytes: tuple[int, ...]


def memory_of(plan: Plan, batch: int = 1) -> Memory:
    """Return what the maps of `batch` pictures of the plan's size take."""
    unit = BYTES_PER_VALUE * batch
    kept = tuple(unit * layer.num_activations for layer in plan.layers)
    alive = tuple(unit * count for count in _alive(plan))
    peak = max(alive)
    return Memory(batch, sum(kept), kept, peak, alive.index(peak), alive)


def _alive(plan: Plan) -> list[int]:
    """Return how many values are alive while each row runs, for one picture."""
    size = {-1: plan.in_channels * math.prod(plan.imgsz)}
    last_use: dict[int, int] = {}
    for layer in plan.layers:
        size[layer.index] = sum(math.prod(shape) for shape in layer.out_shapes)
        last_use |= dict.fromkeys(layer.sources, layer.index)
    counts = []
    for layer in plan.layers:
        living = [row for row, user in last_use.items() if row < layer.index <= user]
        counts.append(size[layer.index] + sum(size[row] for row in living))
    return counts
