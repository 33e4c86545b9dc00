"""Non-maximum suppression, exact and without a time limit: a metric never depends on the load of the machine.

It must not know about letterboxes, labels files or networks: decoded rows in, detections out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from yolocore.ops.boxes import xywh_to_xyxy

MAX_CANDIDATES = 30_000
# Boxes of different classes are moved apart by more than any picture is wide, so one pass serves all classes.
_CLASS_DISTANCE_PX = 7680
_CHUNK = 512
_SMALLEST_CHUNK, _LARGEST_CHUNK = 64, 1024


def non_max_suppression(
    decoded: Tensor,
    *,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    multi_label: bool = False,
    agnostic: bool = False,
    classes: Sequence[int] | None = None,
    max_det: int = 300,
    nm: int = 0,
    labels: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Return per image (k, 6 + nm) rows x1, y1, x2, y2, score, class, mask coefficients; best score first.

    `decoded` (b, n, 5 + classes + nm): centre and size in pixels, objectness, class scores, mask
    coefficients. Rows with objectness above `conf_thres` are candidates; the score is objectness times class
    score, and must exceed `conf_thres` too. `multi_label` lets a row speak for each class, otherwise for its
    best one only. `classes` keeps the listed classes; `agnostic` lets classes suppress each other. `labels`
    are a-priori rows (class, x, y, w, h in pixels) per image, added with score 1. The best 30,000 candidates
    of an image compete. Mask coefficients come out multiplied by objectness, as published networks expect.
    """
    decoded = decoded.detach()
    if decoded.dtype in (torch.float16, torch.bfloat16):
        decoded = decoded.float()
    candidates = []
    for image, rows in enumerate(decoded):
        chosen = rows.index_select(0, (rows[:, 4] > conf_thres).nonzero().flatten())
        if labels and len(labels[image]):
            chosen = torch.cat((chosen, _as_rows(labels[image], decoded)), 0)
        candidates.append(_score(chosen, conf_thres, multi_label, nm, classes))
    return [suppress(found, iou_thres, agnostic, max_det) for found in candidates]


def _as_rows(labels: Tensor, decoded: Tensor) -> Tensor:
    rows = decoded.new_zeros((len(labels), decoded.shape[2]))
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1.0
    rows.scatter_(1, labels[:, 0:1].long() + 5, 1.0)
    return rows


def _score(
    rows: Tensor, conf_thres: float, multi_label: bool, nm: int, classes: Sequence[int] | None
) -> Tensor:
    """Turn (n, 5 + classes + nm) candidates into (k, 6 + nm) scored corner boxes, best score first."""
    num_classes = rows.shape[1] - 5 - nm
    scores = rows[:, 5 : 5 + num_classes] * rows[:, 4:5]
    if multi_label and num_classes > 1:
        flat = scores.flatten()
        passing = (flat > conf_thres).nonzero().flatten()
        score = flat.index_select(0, passing)
        row, cls = passing // num_classes, passing % num_classes
    else:
        score, cls = (
            scores.max(1) if len(scores) else (scores.new_zeros(0), scores.new_zeros(0, dtype=torch.long))
        )
        row = (score > conf_thres).nonzero().flatten()
        score, cls = score[row], cls[row]
    if classes is not None:
        kept = torch.isin(cls, torch.as_tensor(list(classes), device=cls.device, dtype=cls.dtype))
        row, score, cls = row[kept], score[kept], cls[kept]
    score, order = score.sort(descending=True, stable=True)
    order, score = order[:MAX_CANDIDATES], score[:MAX_CANDIDATES]
    row, cls = row.index_select(0, order), cls.index_select(0, order)
    chosen = rows.index_select(0, row)
    parts = [xywh_to_xyxy(chosen[:, :4]), score[:, None], cls[:, None].to(score.dtype)]
    if nm:
        parts.append(chosen[:, 5 + num_classes :] * chosen[:, 4:5])
    return torch.cat(parts, 1)


def suppress(found: Tensor, iou_thres: float, agnostic: bool, max_det: int, *, chunk: int = _CHUNK) -> Tensor:
    """Keep of (k, 6 + nm) sorted rows those that no better kept row overlaps, at most `max_det`.

    A row is suppressed only by rows before it, so the list is taken chunk by chunk: each chunk competes with
    the rows kept so far, and once `max_det` are kept the rest need not be looked at. The result is that of
    one pass. The work is kept rows times rows looked at, so chunks are small: as many rows as should fill
    the list if they survive as those of the last chunk did.
    """
    boxes = found[:, :4] if agnostic else found[:, :4] + found[:, 5:6] * _CLASS_DISTANCE_PX
    scores = found[:, 4]
    kept = torch.zeros(0, dtype=torch.long, device=found.device)
    start, size = 0, max(chunk, 1)
    while start < len(found) and len(kept) < max_det:
        end, num_before = min(start + size, len(found)), len(kept)
        rivals = torch.cat((kept, torch.arange(start, end, device=found.device)))
        kept = rivals[_suppress(boxes[rivals], scores[rivals], iou_thres)]
        needed = (max_det - len(kept)) * (end - start) // max(len(kept) - num_before, 1)
        start, size = end, min(max(needed, _SMALLEST_CHUNK), _LARGEST_CHUNK)
    return found[kept[:max_det]]


def _suppress(boxes: Tensor, scores: Tensor, iou_thres: float) -> Tensor:
    from torchvision.ops import nms  # loads torch's compiler: seconds that a start need not wait for

    kept: Tensor = nms(boxes, scores, iou_thres)
    return kept
