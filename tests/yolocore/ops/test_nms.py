"""Suppression against a slow restatement; chunking changes nothing."""

from __future__ import annotations

import pytest
import torch
import torchvision.ops
from torch import Tensor

from yolocore.ops.boxes import box_iou, xywh_to_xyxy
from yolocore.ops.nms import MAX_CANDIDATES, non_max_suppression, suppress


def random_decoded(seed: int, n: int = 300, num_classes: int = 3, images: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    decoded = torch.rand(images, n, 5 + num_classes, generator=generator)
    decoded[..., :2] *= 200
    decoded[..., 2:4] = 20 + 60 * decoded[..., 2:4]
    return decoded


def slowly(rows: Tensor, conf_thres: float, iou_thres: float, max_det: int) -> list[tuple[int, int]]:
    """Return (row, class) of the kept candidates, every class on its own, one at a time."""
    candidates = [
        (float(rows[row, 4] * rows[row, 5 + cls]), row, cls)
        for row in range(len(rows))
        for cls in range(rows.shape[1] - 5)
        if rows[row, 4] > conf_thres and rows[row, 4] * rows[row, 5 + cls] > conf_thres
    ]
    boxes = xywh_to_xyxy(rows[:, :4].double())
    iou = box_iou(boxes, boxes)
    kept: list[tuple[int, int]] = []
    for _, row, cls in sorted(candidates, reverse=True):
        if all(other != cls or iou[row, seen] <= iou_thres for seen, other in kept):
            kept.append((row, cls))
    return kept[:max_det]


@pytest.mark.parametrize("max_det", [20, 300])
@pytest.mark.parametrize("seed", range(3))
def test_same_detections_as_one_candidate_at_a_time(seed: int, max_det: int) -> None:
    decoded = random_decoded(seed, n=120)
    found = non_max_suppression(decoded, conf_thres=0.1, iou_thres=0.5, multi_label=True, max_det=max_det)
    for rows, detections in zip(decoded, found, strict=True):
        kept = slowly(rows, 0.1, 0.5, max_det)
        row = torch.tensor([row for row, _ in kept])
        cls = torch.tensor([cls for _, cls in kept])
        assert torch.equal(detections[:, :4], xywh_to_xyxy(rows[row, :4]))
        assert torch.equal(detections[:, 4], rows[row, 4] * rows[row, 5 + cls])
        assert torch.equal(detections[:, 5], cls.float())


@pytest.mark.parametrize("max_det", [1, 50, 10_000])
@pytest.mark.parametrize("agnostic", [False, True])
def test_chunks_of_any_size_give_the_result_of_one_pass(agnostic: bool, max_det: int) -> None:
    rows = random_decoded(5, n=5000, images=1)[0]
    found = torch.cat((xywh_to_xyxy(rows[:, :4]), rows[:, 4:5], (rows[:, 5:6] * 3).floor()), 1)
    found = found[found[:, 4].argsort(descending=True)]
    apart = found[:, :4] + (0 if agnostic else found[:, 5:6] * 7680)
    whole = found[torchvision.ops.nms(apart, found[:, 4], 0.4)[:max_det]]
    for chunk in (1, 64, 1000, len(found)):
        assert torch.equal(suppress(found, 0.4, agnostic, max_det, chunk=chunk), whole)


def test_classes_filter_and_best_class_only() -> None:
    decoded = random_decoded(2)
    everything = non_max_suppression(decoded, conf_thres=0.2, iou_thres=1.0, max_det=5000)
    only = non_max_suppression(decoded, conf_thres=0.2, iou_thres=1.0, max_det=5000, classes=[1])
    for rows, kept in zip(everything, only, strict=True):
        assert torch.equal(rows[rows[:, 5] == 1], kept)
        assert len(rows.unique(dim=0)) == len(rows)
    assert all(len(rows) == 0 for rows in non_max_suppression(decoded, classes=[]))


def test_agnostic_lets_classes_suppress_each_other() -> None:
    decoded = torch.tensor([[[50.0, 50, 20, 20, 1, 0.9, 0.1], [51, 50, 20, 20, 1, 0.1, 0.8]]])
    assert len(non_max_suppression(decoded)[0]) == 2
    kept = non_max_suppression(decoded, agnostic=True)[0]
    assert kept[:, 5].tolist() == [0.0]


def test_apriori_labels_compete_with_score_one() -> None:
    decoded = torch.tensor([[[50.0, 50, 20, 20, 0.9, 0.9, 0.0]], [[50.0, 50, 20, 20, 0.9, 0.9, 0.0]]])
    labels = [torch.tensor([[1.0, 90, 90, 10, 10]]), torch.zeros(0, 5)]
    first, second = non_max_suppression(decoded, labels=labels)
    assert first[0].tolist() == [85, 85, 95, 95, 1, 1]
    assert (len(first), len(second)) == (2, 1)


def test_nothing_to_keep_and_half_precision() -> None:
    empty = non_max_suppression(torch.zeros(2, 0, 8, dtype=torch.float16))
    assert [rows.shape for rows in empty] == [(0, 6), (0, 6)]
    assert non_max_suppression(torch.zeros(1, 9, 12), nm=4)[0].shape == (0, 10)
    kept = non_max_suppression(random_decoded(3).half(), conf_thres=0.3)[0]
    assert kept.dtype == torch.float32
    assert len(kept) > 0


def test_equal_scores_keep_the_order_of_the_rows() -> None:
    decoded = torch.zeros(1, 6, 6)
    decoded[0, :, :2] = torch.arange(6)[:, None] * 30.0
    decoded[0, :, 2:4] = 10
    decoded[0, :, 4:] = 0.9
    centres = (non_max_suppression(decoded)[0][:, 0] + 5) / 30
    assert centres.tolist() == [0, 1, 2, 3, 4, 5]


def test_at_most_the_best_thirty_thousand_compete() -> None:
    decoded = torch.zeros(1, MAX_CANDIDATES + 50, 6)
    decoded[0, :, 0] = torch.arange(MAX_CANDIDATES + 50)
    decoded[0, :, 2:4] = 0.5
    decoded[0, :, 4] = torch.linspace(0.99, 0.5, MAX_CANDIDATES + 50)
    decoded[0, :, 5] = 1.0
    kept = non_max_suppression(decoded, max_det=3, agnostic=True)[0]
    assert kept[:, 0].tolist() == [-0.25, 0.75, 1.75]
