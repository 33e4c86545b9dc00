"""The textbook way computes the same as the project's: otherwise comparing their speed says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.baselines.data import TextbookData, jitter, warp
from benchmarks.baselines.optim import TextbookEma, textbook_sgd
from benchmarks.baselines.scoring import TextbookJudge, textbook_nms
from benchmarks.baselines.training import plain_twin
from benchmarks.loads import LOADS, Load, made_pictures, num_candidates
from benchmarks.ours import read_data
from benchmarks.parts_run import (
    both_losses,
    made_maps,
    made_network,
    made_targets,
    our_scoring,
    textbook_scoring,
)
from benchmarks.photographs import photographs
from yolocore.data.augment import HsvJitter
from yolocore.data.geometry import PerspectiveDraw, map_labels, perspective_matrix
from yolocore.data.mosaic import place_tiles, render, tile_rows
from yolocore.eval.matching import match_detections
from yolocore.loss.detection import to_tensors
from yolocore.ops.assign import assign_targets
from yolocore.ops.nms import non_max_suppression
from yolocore.train.ema import Ema
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision

IMGSZ = 96


@pytest.mark.parametrize("boxes", [0, 1, 20])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_losses_and_gradients_agree(boxes: int, num_classes: int) -> None:
    network = made_network(IMGSZ, num_classes=num_classes)
    ours, textbook = both_losses(network, IMGSZ, num_classes)
    targets = made_targets(3, boxes, num_classes)
    shapes = [(IMGSZ // stride,) * 2 for stride in (8, 16, 32)]
    maps, plain = made_maps(network, 3, IMGSZ, num_classes), made_maps(network, 3, IMGSZ, num_classes)
    matches = assign_targets(targets.numpy(), network.head.anchors.numpy(), shapes, 4.0)
    total, items = ours(maps, to_tensors(matches))
    other, other_items = textbook(plain, targets)
    torch.testing.assert_close(total, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(items, other_items, rtol=1e-5, atol=1e-6)
    total.backward()
    other.backward()
    for one, two in zip(maps, plain, strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_detections_verdicts_and_ap_agree(load: Load) -> None:
    decoded, labels = made_pictures(replace(load, candidates=load.candidates // 3), 3)
    assert num_candidates(decoded) == pytest.approx(load.candidates // 3, rel=0.01)
    ours = non_max_suppression(decoded, conf_thres=0.001, iou_thres=0.6, multi_label=True)
    textbook = textbook_nms(decoded)
    judge = TextbookJudge()
    for one, two, true in zip(ours, textbook, labels, strict=True):
        assert torch.equal(one, two)
        judge.add(two, true)
        assert np.array_equal(judge.correct[-1], match_detections(one.numpy(), true.numpy()))
    np.testing.assert_allclose(our_scoring(decoded, labels), textbook_scoring(decoded, labels), atol=1e-9)


def test_optimizer_and_average_agree() -> None:
    network = made_network(IMGSZ)
    twin = plain_twin(network)
    ema, other = Ema(network), TextbookEma(twin)
    optimizer = build_optimizer(network, name="SGD", lr=0.01, momentum=0.937, weight_decay=0.0005)
    textbook = textbook_sgd(twin, 0.01, 0.937, 0.0005)
    precision = Precision("fp32", torch.device("cpu"))
    for step in range(3):
        for one, two in zip(network.parameters(), twin.parameters(), strict=True):
            one.grad = torch.full_like(one, 0.01 * (step + 1))
            two.grad = torch.full_like(two, 0.01 * (step + 1))
        precision.step(optimizer, network.parameters(), 10.0)
        ema.update()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 10.0)
        textbook.step()
        other.update(twin)
    for one, two in zip(ema.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_mosaic_warp_and_colours_agree(tmp_path: Path) -> None:
    data = read_data(photographs(tmp_path, quick=True).data_yaml)
    textbook = TextbookData(data.train, IMGSZ, cached=False)
    indices, centre = (0, 1, 2, 3), (80, 110)
    canvas, rows = textbook.mosaic(indices, centre)
    tiles = place_tiles([textbook.picture(index) for index in indices], centre, IMGSZ)
    size = (2 * IMGSZ, 2 * IMGSZ)
    assert np.array_equal(canvas, render(tiles, size, np.eye(3), size))
    ours = np.concatenate(
        [tile_rows(tile, data.train[i].rows, 2 * IMGSZ) for tile, i in zip(tiles, indices, strict=True)]
    )
    np.testing.assert_allclose(rows, ours, atol=1e-3)

    draw = PerspectiveDraw(scale=1.2, translate_x=0.55, translate_y=0.45)
    matrix = perspective_matrix(draw, size, (IMGSZ, IMGSZ))
    image, moved = warp(canvas, rows, 1.2, (0.55 * IMGSZ, 0.45 * IMGSZ), IMGSZ)
    window = render(tiles, size, matrix, (IMGSZ, IMGSZ))
    assert (image != window).mean() < 0.06  # rounding of the warp's shares, by a level
    assert np.abs(image.astype(int) - window).max() <= 1
    mapped = map_labels(ours, None, matrix, (IMGSZ, IMGSZ), 1.2)
    np.testing.assert_allclose(moved, mapped, atol=1e-2)
    ours = np.empty_like(image)
    HsvJitter((1.01, 0.7, 1.3)).apply(image, ours)
    assert np.array_equal(jitter(image, np.array([1.01, 0.7, 1.3])), ours[..., ::-1])
