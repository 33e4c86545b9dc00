"""One pass over the raw maps that takes out what the loss looks at: objectness logits and matched rows.

Written as one autograd function because the plain way makes a zero-filled gradient map for each selection and
adds them up; here each map's gradient is allocated once and written in place. Rows that name the same cell
are added in list order on the CPU and by sorted index on CUDA, so the gradient does not depend on thread
timing. It must not know what the numbers mean beyond "column 4 is objectness".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from yolocore.loss.targets import LevelTargets

OBJECTNESS = 4


def is_channels_last(raw: Tensor) -> bool:
    """Tell if a (b, anchors, rows, columns, no) map lies in memory as (b, rows, columns, anchors, no)."""
    return raw.permute(0, 2, 3, 1, 4).is_contiguous() and not raw.is_contiguous()


def gather(maps: Sequence[Tensor], levels: Sequence[LevelTargets]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return objectness logits (N,) of all levels, matched rows (m, no), and the winners' places per level.

    The order inside a level's objectness follows the map's memory layout; the returned places fit it.
    """
    last = [is_channels_last(raw) for raw in maps]
    cells = [level.cell_nhwc if nhwc else level.cell_nchw for nhwc, level in zip(last, levels, strict=True)]
    winners = [
        level.winner_nhwc if nhwc else level.winner_nchw for nhwc, level in zip(last, levels, strict=True)
    ]
    rows = [raw.permute(0, 2, 3, 1, 4) if nhwc else raw for nhwc, raw in zip(last, maps, strict=True)]
    flat = [raw.reshape(-1, raw.shape[-1]) for raw in rows]
    objectness, matched = _Gather.apply(cells, *flat)
    return objectness, matched, winners


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cells: list[Tensor], *flat: Tensor) -> tuple[Tensor, Tensor]:
        ctx.cells = cells
        ctx.shapes = [raw.shape for raw in flat]
        objectness = torch.cat([raw[:, OBJECTNESS] for raw in flat])
        return objectness, torch.cat(
            [raw.index_select(0, cell) for raw, cell in zip(flat, cells, strict=True)]
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_objectness, grad_rows = grads
        by_level = torch.split(grad_objectness, [shape[0] for shape in ctx.shapes])
        rows_by_level = torch.split(grad_rows, [len(cell) for cell in ctx.cells])
        out: list[Tensor | None] = [None]
        for shape, cell, objectness, rows in zip(ctx.shapes, ctx.cells, by_level, rows_by_level, strict=True):
            grad = objectness.new_zeros(shape)
            if rows.is_cuda:
                grad.index_put_((cell,), rows, accumulate=True)
            else:
                grad.index_add_(0, cell, rows)
            grad[:, OBJECTNESS] += objectness
            out.append(grad)
        return tuple(out)
