"""Checkpoints as users upload them: each is read or refused as its manifest says, and none runs code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared import folder, intake_dir
from yolocore.errors import CheckpointError
from yolocore.model.build import build_network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.spec.zoo import zoo_text
from yolocore.weights.read import read_weights
from yolocore.weights.transfer import transfer

INTAKE = folder("TRAINSHED_INTAKE", "intake")
CASES: list[dict[str, Any]] = (
    json.loads((INTAKE / "checkpoints" / "manifest.json").read_text())["cases"] if INTAKE else []
)
CODES = {
    "lfs_pointer.pt": "CHECKPOINT_LFS_POINTER",
    "empty.pt": "CHECKPOINT_EMPTY",
    "evil_hidden_key.pt": "CHECKPOINT_UNSAFE",
    "no_data_pkl.pt": "CHECKPOINT_NO_DATA",
    "torchscript.pt": "CHECKPOINT_TORCHSCRIPT",
    "zip_missing_storage.pt": "CHECKPOINT_STORAGE_MISSING",
    "bomb.pt": "CHECKPOINT_TOO_LARGE",
}
REASONS = {"state_dict_nan.pt": "not finite", "state_dict_shape.pt": "shape", "state_dict_only.pt": None}


REFUSED = [c for c in CASES if c["expect"].startswith("reject") and "or load" not in c["expect"]]
READ = [case for case in CASES if case not in REFUSED]


def test_the_folder_is_there() -> None:
    assert (intake_dir() / "checkpoints").is_dir()
    assert REFUSED and READ


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["file"])
def test_bad_files_are_refused_by_name(case: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_weights(intake_dir() / "checkpoints" / case["file"])
    assert caught.value.code == CODES.get(case["file"], caught.value.code)
    assert caught.value.place
    if "LFS" in case["expect"]:
        assert "LFS pointer" in caught.value.message


@pytest.mark.parametrize("case", READ, ids=lambda case: case["file"])
def test_partial_files_are_read_and_what_does_not_fit_is_named(case: dict[str, Any]) -> None:
    weights = read_weights(intake_dir() / "checkpoints" / case["file"])
    assert weights.tensors
    assert bool(weights.not_finite) == ("NaN" in case["expect"])
    network = build_network(plan_architecture(parse_architecture(zoo_text("yolov5n"))))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    reason = REASONS.get(case["file"])
    if reason is None:
        report = transfer(network, weights.tensors, keep_anchors=True)
        assert report.loaded == len(weights.tensors)
        assert {item.reason for item in report.left_out} <= {"not in the file", "anchors are the model's"}
        return
    with pytest.raises(CheckpointError) as caught:  # its only tensor is the bad one
        transfer(network, weights.tensors, keep_anchors=True)
    assert caught.value.code == "WEIGHTS_DO_NOT_FIT"
    assert reason in (caught.value.place or "")
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


def test_no_canary_appeared() -> None:
    assert not list(Path("/tmp").glob("pwned*"))
