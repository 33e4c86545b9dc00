"""What is delivered is what was judged, and what was found in each picture is told apart by its name."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.loops import no_validation
from tests.support.shapes import TINY_MODEL
from yolocore.eval.validate import ValidationResult
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.export import judge_best, text_paths, written_detections
from yolocore.train.outputs import halved


def test_the_best_weights_are_judged_as_rounded_as_they_are_delivered() -> None:
    network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))
    best = copy.deepcopy(network.state_dict())
    judged: dict[str, torch.Tensor] = {}

    def evaluate(candidate: Network, num_pictures: int) -> ValidationResult:
        judged.update(candidate.state_dict())
        return no_validation(candidate)

    judge_best(network, best, evaluate)
    for key, delivered in halved(best).items():
        assert torch.equal(judged[key], delivered.to(judged[key].dtype)), key
    assert not torch.equal(judged["model.0.conv.weight"], best["model.0.conv.weight"])
    assert torch.equal(network.state_dict()["model.0.conv.weight"], best["model.0.conv.weight"])


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        ([], []),
        (["/d/images/val/a.jpg", "/d/images/val/b.c.jpg"], ["a.txt", "b.c.txt"]),
        (["/d/images/x/a.jpg", "/d/images/y/a.jpg"], ["x/a.txt", "y/a.txt"]),
        (["images/val/a.jpg", "images/val/x/a.jpg"], ["val/a.txt", "val/x/a.txt"]),
        (["images/a.jpg", "a.jpg"], ["images/a.txt", "a.txt"]),
        (["/d/a.jpg", "/d/a.png", "/d/b.png"], ["a.jpg.txt", "a.png.txt", "b.png.txt"]),
        (["/d/x/../../e/a.jpg", "/d/a.jpg"], ["e/a.txt", "d/a.txt"]),
        (["../../a.jpg"], ["a.txt"]),
    ],
)
def test_no_two_pictures_share_a_text_and_none_leaves_the_folder(names: list[str], paths: list[str]) -> None:
    assert text_paths(names) == paths


def test_detections_appear_when_all_pictures_are_judged(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    names = ["images/val/x/a.jpg", "images/val/b.jpg"]
    found = np.array([[0, 0, 20, 10, 0.5, 1], [10, 5, 20, 10, 0.25, 0]], np.float32)
    with written_detections(folder, names, wanted=True, with_score=True) as take:
        assert take is not None
        take(names[0], (10, 20), found)
        take(names[1], (10, 20), found[:0])
        assert not folder.exists()
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "val" / "x" / "a.txt"]
    assert (folder / "val" / "x" / "a.txt").read_text() == "1 0.5 0.5 1 1 0.5\n0 0.75 0.75 0.5 0.5 0.25\n"
    with written_detections(tmp_path / "none", names, wanted=False, with_score=True) as take:
        assert take is None
    assert list(tmp_path.iterdir()) == [folder]
