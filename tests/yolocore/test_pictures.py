"""The batches of training that are drawn at a run's end are those that it was trained on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import SETTINGS
from tests.support.shapes import TINY_MODEL, write_shapes
from yolocore.model.build import build_network
from yolocore.spec.config import parse_config
from yolocore.train.inputs import plan_run, read_folder
from yolocore.train.precision import Precision
from yolocore.train.request import RunSettings
from yolocore.wiring import Wiring


def wiring(folder: Path, told: list[str], **config: Any) -> Wiring:
    data = read_folder(write_shapes(folder), single_cls=False, warn=lambda *_: None)
    plan = plan_run(TINY_MODEL, name="tiny.yaml", num_classes=2, imgsz=64)
    device = torch.device("cpu")
    return Wiring(
        config=parse_config({**SETTINGS, "batch": 4, **config}),
        settings=RunSettings(cache="ram", loader_threads=2),
        device=device,
        precision=Precision("fp32", device),
        data=data,
        imgsz=64,
        strides=[8, 16],
        val_stride=32,
        batch=4,
        anchors_grid=build_network(plan).head.anchors.numpy(),
        warn=lambda code, message: told.append(f"{code}: {message}"),
        check=lambda: None,
    )


@pytest.mark.parametrize("config", [{}, {"image_weights": True}, {"quad": True}, {"rect": True}])
def test_the_batches_drawn_are_those_trained_on(config: dict[str, bool], tmp_path: Path) -> None:
    told: list[str] = []
    wired = wiring(tmp_path, told, **config)
    drawn = list(wired.first_batches())
    with wired.train_loader(None) as loader:
        if "image_weights" in config:
            loader.set_class_maps([0.0, 0.0])
        trained = list(islice(loader.epoch(0), 3))
    assert len(drawn) == len(trained) == (2 if "quad" in config else 3) and not told
    for one, other in zip(drawn, trained, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)
        assert one.paths == other.paths


def test_images_that_have_gone_are_told_and_end_the_batches(tmp_path: Path) -> None:
    told: list[str] = []
    wired = wiring(tmp_path, told)
    for path in (tmp_path / "images" / "train").iterdir():
        path.unlink()
    assert not list(wired.first_batches())
    assert len(told) == 1 and told[0].startswith("NO_PICTURE: ")
