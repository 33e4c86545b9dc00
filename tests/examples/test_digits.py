"""The sample dataset: reproducible, honest in its split, readable by the intake, and its model plannable."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from examples import demo
from examples.digits import NAMES, SceneRecipe, build_archive, compose_scene, load_scans, split_scans
from tests.support.shared import ROOT
from worker.ingest.limits import Limits
from worker.ingest.run import ingest_archive
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.config import parse_config
from yolocore.spec.plan import plan_architecture

SMALL = SceneRecipe(num_train=6, num_val=3)


def test_the_archive_is_the_same_byte_for_byte_and_differs_with_the_seed() -> None:
    first = build_archive(SMALL)
    assert build_archive(SMALL) == first
    assert build_archive(SceneRecipe(num_train=6, num_val=3, seed=1)) != first


def test_no_scan_is_in_both_splits_and_every_digit_in_each() -> None:
    scans, classes = load_scans()
    train, val = split_scans(classes, 0.25, seed=0)
    assert not set(train) & set(val)
    assert len(train) + len(val) == len(scans) == 1797
    assert set(classes[train]) == set(classes[val]) == set(range(10))


def test_boxes_hold_the_ink_and_do_not_overlap() -> None:
    scans, classes = load_scans()
    quiet = SceneRecipe(noise=0.0)
    for seed in range(5):
        scene = compose_scene(np.random.default_rng(seed), scans, classes, quiet)
        covered = np.zeros(scene.image.shape[:2], int)
        for _, x, y, w, h in scene.rows:
            top, left = round((y - h / 2) * 160), round((x - w / 2) * 160)
            covered[top : top + round(h * 160), left : left + round(w * 160)] += 1
        assert covered.max() == 1
        bright = scene.image.min(axis=2) > 130
        assert bright.any() and not (bright & (covered == 0)).any()


def test_the_intake_takes_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "digits.zip").write_bytes(build_archive(SMALL))
    result = ingest_archive(tmp_path / "digits.zip", tmp_path, Limits())
    report = json.loads((tmp_path / "report.json").read_text())
    # So few pictures do not show every digit in both splits; of the files there is nothing to say.
    advice = {"CLASS_NOT_IN_TRAIN", "CLASS_NOT_IN_VAL", "CLASS_UNUSED", "FEW_IMAGES"}
    assert {item["code"] for item in report["problems"]} <= advice
    assert result["status"] == "ready" and result["errors"] == 0
    assert result["splits"] == {"train": 6, "val": 3, "test": 0}
    assert result["classes"] == list(NAMES)


def test_every_picture_has_the_side_of_the_recipe() -> None:
    with zipfile.ZipFile(io.BytesIO(build_archive(SMALL))) as archive:
        pictures = [name for name in archive.namelist() if name.endswith(".jpg")]
        assert len(pictures) == 9
        for name in pictures:
            assert Image.open(io.BytesIO(archive.read(name))).size == (160, 160)


def test_the_models_can_be_planned_for_the_classes() -> None:
    for name in ("digits.yaml", "yolov5n.yaml"):
        text = (ROOT / "examples" / name).read_text(encoding="utf-8")
        plan = plan_architecture(parse_architecture(text, source=name), num_classes=len(NAMES))
        assert plan.num_classes == 10


def test_the_demo_says_what_differs_from_the_defaults() -> None:
    config = json.loads((ROOT / "examples" / "digits_job.json").read_text(encoding="utf-8"))["config"]
    lines = list(demo.differences(config))
    assert f"imgsz: {parse_config(config).imgsz} (default 640)" in lines
    assert not any(line.startswith("seed:") for line in lines)
    assert list(demo.differences({})) == []
