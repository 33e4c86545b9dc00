"""What a run is given, read and checked before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shapes import DEEP_MODEL, TINY_MODEL, write_shapes
from yolocore.errors import DatasetError
from yolocore.train.inputs import plan_run, read_folder, val_stride


@pytest.mark.parametrize(
    ("text", "stride"),
    [(TINY_MODEL, 32), (DEEP_MODEL, 64), (TINY_MODEL.replace("[24, 3, 2]", "[24, 3, 3]"), 96)],
)
def test_sides_of_validation_pictures_suit_every_row(text: str, stride: int) -> None:
    assert val_stride(plan_run(text, name="a.yaml", num_classes=2, imgsz=64)) == stride


def without_labels(data_yaml: Path, split: str) -> Path:
    for path in (data_yaml.parent / "labels" / split).iterdir():
        path.write_text("")
    return data_yaml


def test_training_on_no_label_at_all_is_refused(tmp_path: Path) -> None:
    data_yaml = without_labels(write_shapes(tmp_path, num_train=3, num_val=1), "train")
    with pytest.raises(DatasetError) as caught:
        read_folder(data_yaml, single_cls=False, warn=lambda code, message: None)
    assert (caught.value.code, caught.value.place) == ("NO_LABELS", "train")


def test_validating_on_no_label_at_all_is_warned_of(tmp_path: Path) -> None:
    data_yaml = without_labels(write_shapes(tmp_path, num_train=1, num_val=2), "val")
    warned: list[str] = []
    data = read_folder(data_yaml, single_cls=True, warn=lambda code, message: warned.append(code))
    assert warned == ["NO_LABELS"]
    assert data.names == ["item"] and {row[0] for row in data.train[0].rows.tolist()} == {0.0}
