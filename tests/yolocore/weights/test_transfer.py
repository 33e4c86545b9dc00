"""Starting from given weights: a published checkpoint, and our own."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.support.runs import do_run, request
from tests.support.shapes import write_shapes
from tests.support.shared import datasets_dir, weights_dir
from yolocore.errors import CheckpointError
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.ops.nms import non_max_suppression
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.spec.zoo import zoo_text
from yolocore.weights.read import read_weights
from yolocore.weights.transfer import transfer


def published(name: str, num_classes: int | None = None) -> Network:
    return build_network(plan_architecture(parse_architecture(zoo_text(name)), num_classes=num_classes))


def test_the_published_checkpoint_loads_by_name() -> None:
    given = read_weights(weights_dir() / "yolov5n.pt")
    shapes = json.loads((weights_dir() / "yolov5n_shapes.json").read_text())
    wanted = {**shapes["params"], **shapes["buffers"]}
    assert {key: list(tensor.shape) for key, tensor in given.tensors.items()} == wanted
    assert (given.num_classes, given.strides, given.epoch) == (80, (8, 16, 32), -1)
    assert given.names[:2] == ("person", "bicycle")
    assert given.anchors is not None and given.anchors[0, 0].tolist() == [10, 13]
    report = transfer(published("yolov5n"), given.tensors, keep_anchors=False)
    assert (report.loaded, report.total, report.left_out) == (349, 349, [])


def test_another_class_count_costs_the_last_convolutions_alone() -> None:
    given = read_weights(weights_dir() / "yolov5n.pt")
    network = published("yolov5n", num_classes=3)
    anchors = network.head.anchors.clone()
    report = transfer(network, given.tensors, keep_anchors=True)
    assert [item.name for item in report.left_out if item.reason == "shape"] == [
        f"model.24.m.{level}.{part}" for level in range(3) for part in ("weight", "bias")
    ]
    assert [item.name for item in report.left_out if item.reason != "shape"] == ["model.24.anchors"]
    assert report.loaded == 342 and network.head.anchors.equal(anchors)
    assert "342 of 349" in report.summary() and "model.24.m.0.bias (shape [255] for [24])" in report.summary()


def test_the_published_checkpoint_sees_things_on_real_photographs() -> None:
    network = published("yolov5n")
    transfer(network, read_weights(weights_dir() / "yolov5n.pt").tensors, keep_anchors=False)
    network.eval()
    scores = []
    with zipfile.ZipFile(datasets_dir() / "fruits_nuts_coco.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".png")))[:6]
        for name in names:
            image = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            scale = 320 / max(image.shape[:2])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            down, right = (320 - side for side in small.shape[:2])
            square = cv2.copyMakeBorder(small, 0, down, 0, right, cv2.BORDER_CONSTANT, value=(114,) * 3)
            x = torch.from_numpy(square[..., ::-1].transpose(2, 0, 1).copy()).float()[None] / 255
            with torch.no_grad():
                decoded = network(x)[0]
            assert torch.isfinite(decoded).all()
            found = non_max_suppression(decoded, conf_thres=0.25, iou_thres=0.45)[0]
            scores += found[:, 4].tolist()
    assert len(scores) >= 3 and max(scores) > 0.4


def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(CheckpointError) as caught:
        transfer(torch.nn.Conv2d(1, 1, 1), {"other": torch.zeros(1)}, keep_anchors=True)
    assert caught.value.code == "WEIGHTS_DO_NOT_FIT"


def test_a_run_starts_from_the_best_of_another_and_says_so(tmp_path: Path) -> None:
    data_yaml = write_shapes(tmp_path / "data")
    do_run(request(tmp_path / "first", data_yaml, epochs=1))
    best = tmp_path / "first" / "artifacts" / "best.pt"
    given = read_weights(best)
    assert given.anchors is None or given.anchors.ndim == 3
    second = replace(request(tmp_path / "second", data_yaml, epochs=1), weights=best)
    told = do_run(second)
    [line] = [event.message for event in told.of("log") if "given weights" in event.message]
    count = len(given.tensors)
    assert line.startswith(f"{count - 1} of {count} tensors start") and "anchors" in line

    other = tmp_path / "other.pt"
    torch.save({"model.0.conv.weight": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError) as caught:
        do_run(replace(request(tmp_path / "third", data_yaml, epochs=1), weights=other))
    assert caught.value.code == "WEIGHTS_DO_NOT_FIT"
