"""One pass over the validation pictures: detections, validation loss, metrics.

It reads a network (normally a folded copy of the averaged weights, in eval mode) and never changes it. It
must not know about training, files or events; pictures for drawing are handed back, and detections handed on
picture by picture, not written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yolocore.eval.matching import (
    IOU_THRESHOLDS,
    NO_LABEL,
    ConfusionMatrix,
    best_labels,
    first_hits,
    pairwise_iou,
)
from yolocore.eval.metrics import ClassCurves, DetectionMetrics, Judged, summarize
from yolocore.loss.detection import DetectionLoss, to_tensors
from yolocore.ops.assign import LevelMatches
from yolocore.ops.boxes import scale_boxes_to_image, xywh_to_xyxy
from yolocore.ops.nms import non_max_suppression

Floats = NDArray[np.floating[Any]]
# Who wants the detections of each picture gets its name, its (height, width), and rows (n, 6) x1, y1, x2, y2,
# score, class in its pixels.
Take = Callable[[str, tuple[int, int], Floats], None]


class Shape(Protocol):
    """How a picture came from its file: (h0, w0), (gain_h, gain_w), (pad_w, pad_h)."""

    @property
    def original_hw(self) -> tuple[int, int]: ...
    @property
    def ratio_hw(self) -> tuple[float, float]: ...
    @property
    def pad_wh(self) -> tuple[float, float]: ...


class ValBatch(Protocol):
    """What is read of a batch: uint8 RGB pictures (b, 3, H, W), targets (n, 6), the loader's matches."""

    @property
    def images(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def paths(self) -> list[str]: ...
    @property
    def shapes(self) -> Sequence[Shape] | None: ...
    @property
    def matches(self) -> list[LevelMatches] | None: ...


class Autocasting(Protocol):
    """Whoever decides in which precision a forward pass runs."""

    def autocast(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class Sample:
    """One picture for drawing: RGB HWC uint8 as the network saw it, boxes in its pixels.

    `detections` (n, 6) x1, y1, x2, y2, score, class; `labels` (m, 5) class, x1, y1, x2, y2.
    """

    path: str
    image: NDArray[np.uint8]
    detections: Floats
    labels: Floats


@dataclass(frozen=True)
class ValidationResult:
    """What a pass found. `losses` are means over batches of box, obj, cls; None if no loss was asked for."""

    metrics: DetectionMetrics
    losses: tuple[float, float, float] | None
    confusion: NDArray[np.int64]
    num_images: int
    num_labels: int
    seconds: float
    samples: list[Sample] = field(default_factory=list)

    @property
    def curves(self) -> ClassCurves:
        """Curves of the classes with labels."""
        return self.metrics.curves


def validate(
    network: nn.Module,
    batches: Iterable[ValBatch],
    *,
    loss: DetectionLoss | None,
    num_classes: int,
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    precision: Autocasting | None = None,
    device: torch.device | str = "cpu",
    single_class: bool = False,
    num_samples: int = 0,
    take: Take | None = None,
) -> ValidationResult:
    """Run the network over all batches and judge its detections.

    Metrics are those of boxes in the pixels of the original pictures. `single_class` sets all classes to 0
    and lets all boxes suppress each other. `take` is called with the detections of each picture. There is no
    time limit; whoever wants to end early raises from `batches`.
    """
    assert not network.training, "validate() takes a network in eval mode"
    began = time.perf_counter()
    judge = Judge(num_classes, single_class=single_class)
    losses: list[Tensor] = []
    samples: list[Sample] = []
    for batch in batches:
        decoded, items = _forward(network, batch, loss, precision, torch.device(device))
        if items is not None:
            losses.append(items)
        found = non_max_suppression(
            decoded,
            conf_thres=conf_thres,
            iou_thres=iou_thres,
            multi_label=True,
            agnostic=single_class,
            max_det=max_det,
        )
        detections = [rows[:, :6].float().cpu().numpy() for rows in found]
        labels = labels_of_images(batch)
        for image in range(min(len(detections), num_samples - len(samples))):
            samples.append(_sample(batch, image, detections[image], labels[image]))
        _judge_batch(judge, batch, detections, labels, take)
    metrics = judge.metrics()
    return ValidationResult(
        metrics=metrics,
        losses=_mean_losses(losses),
        confusion=judge.confusion.counts,
        num_images=judge.num_images,
        num_labels=int(metrics.num_labels.sum()),
        seconds=time.perf_counter() - began,
        samples=samples,
    )


class Judge:
    """Collects detections and labels picture by picture, and judges them all at once."""

    def __init__(self, num_classes: int, *, single_class: bool = False) -> None:
        self.num_classes = num_classes
        self.single_class = single_class
        self.confusion = ConfusionMatrix(num_classes)
        self.num_images = 0
        self._num_labels = 0
        self._label: list[NDArray[np.int64]] = []
        self._iou: list[Floats] = []
        self._rows: list[Floats] = []
        self._true: list[Floats] = []

    def add(self, detections: Floats, labels: Floats) -> None:
        """Take one picture: (n, 6) x1, y1, x2, y2, score, class; (m, 5) class, x1, y1, x2, y2; in pixels."""
        if self.single_class:
            detections, labels = detections.copy(), labels.copy()
            detections[:, 5] = 0
            labels[:, 0] = 0
        pairwise = pairwise_iou(detections, labels)
        label, iou = best_labels(detections, labels, pairwise)
        self._label.append(np.where(label == NO_LABEL, NO_LABEL, label + self._num_labels))
        self._iou.append(iou)
        self._rows.append(detections[:, 4:6])
        self._true.append(labels[:, 0])
        self._num_labels += len(labels)
        self.num_images += 1
        self.confusion.add(detections, labels, pairwise)

    def metrics(self) -> DetectionMetrics:
        """Return the figures of everything added so far; zeros if that is nothing."""
        if not self._rows:
            empty = np.zeros(0, np.int64)
            verdicts = np.zeros((0, len(IOU_THRESHOLDS)), np.bool_)
            return summarize(Judged(verdicts, np.zeros(0), empty, empty), self.num_classes)
        rows = np.concatenate(self._rows)
        judged = Judged(
            correct=first_hits(np.concatenate(self._label), np.concatenate(self._iou)),
            score=rows[:, 0],
            predicted=rows[:, 1].astype(np.int64),
            true=np.concatenate(self._true).astype(np.int64),
        )
        return summarize(judged, self.num_classes)


def labels_of_images(batch: ValBatch) -> list[Floats]:
    """Return per picture the labels (m, 5) class, x1, y1, x2, y2 in pixels of the network's input."""
    num_images, _, height, width = batch.images.shape
    targets = batch.targets
    size = targets.new_tensor([width, height] * 2)
    rows = torch.cat((targets[:, 1:2], xywh_to_xyxy(targets[:, 2:6] * size)), 1).cpu().numpy()
    image = targets[:, 0].cpu().numpy()
    return [rows[image == number] for number in range(num_images)]


def _judge_batch(
    judge: Judge,
    batch: ValBatch,
    detections: Sequence[Floats],
    labels: Sequence[Floats],
    take: Take | None,
) -> None:
    """Map boxes back to the original pictures, where shapes are known, and add them."""
    height, width = batch.images.shape[2:]
    for image, (found, true) in enumerate(zip(detections, labels, strict=True)):
        size_hw = (height, width)
        if batch.shapes is not None:
            shape = batch.shapes[image]
            size_hw = shape.original_hw
            found, true = found.copy(), true.copy()
            found[:, :4] = _to_image(found[:, :4], shape)
            true[:, 1:5] = _to_image(true[:, 1:5], shape)
        judge.add(found, true)
        if take is not None:
            take(batch.paths[image], size_hw, found)


def _to_image(boxes_xyxy_px: Floats, shape: Shape) -> Floats:
    return scale_boxes_to_image(boxes_xyxy_px, shape.original_hw, shape.ratio_hw, shape.pad_wh)


@torch.no_grad()
def _forward(
    network: nn.Module,
    batch: ValBatch,
    loss: DetectionLoss | None,
    precision: Autocasting | None,
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    """Return decoded rows and the loss items, left on the device."""
    weights = next(network.parameters(), None)
    dtype = weights.dtype if weights is not None else torch.float32
    images = batch.images.to(device, non_blocking=True).to(dtype) / 255
    with precision.autocast() if precision is not None else nullcontext():
        decoded, maps = network(images)[:2]
    if loss is None or batch.matches is None:
        return decoded, None
    _, items = loss(maps, to_tensors(batch.matches, device, non_blocking=True))
    return decoded, items


def _mean_losses(losses: Sequence[Tensor]) -> tuple[float, float, float] | None:
    if not losses:
        return None
    box, obj, cls = torch.stack(list(losses)).mean(0).tolist()
    return box, obj, cls


def _sample(batch: ValBatch, image: int, detections: Floats, labels: Floats) -> Sample:
    pixels = batch.images[image].permute(1, 2, 0).cpu().contiguous().numpy().copy()
    return Sample(batch.paths[image], pixels, detections, labels)
