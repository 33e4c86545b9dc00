"""What a run does with wrong input: it goes on without it and says so, or ends by name and leaves nothing."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.failures import failure
from tests.support.pictures import huge_png
from tests.support.runs import WishAt, do_run, request
from tests.support.shapes import TINY_MODEL, write_shapes
from yolocore.errors import DatasetError
from yolocore.spec.events import TrainEvent, encode_line
from yolocore.train.checkpoint import checkpoints_in

ROW = "0 0.5 0.5 0.4 0.4\n"


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    """A dataset that the test may spoil."""
    return write_shapes(tmp_path / "shapes")


# ---- pictures and labels that cost themselves, not the run


def write_odd_pictures(folder: Path) -> dict[str, str]:
    """Add labelled pictures to a split's folder; return what must be told of each that is left out."""
    square = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    for name, mode in (("grey.jpg", "L"), ("cmyk.jpg", "CMYK"), ("palette.png", "P"), ("alpha.png", "RGBA")):
        square.convert(mode).save(folder / name)
    Image.fromarray(np.full((40, 40), 30_000, np.uint16)).save(folder / "deep.png")
    square.save(folder / "really_a.jpg", "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    square.resize((60, 30)).save(folder / "turned.jpg", exif=exif)
    square.save(folder / "frames.webp", save_all=True, append_images=[square.rotate(90)])

    square.save(folder / "whole.bmp")
    (folder / "cut.bmp").write_bytes((folder / "whole.bmp").read_bytes()[:-50])
    square.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-300])
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.png").write_text("<html>not found</html>")
    (folder / "huge.png").write_bytes(huge_png(40_000, 40_000))
    square.save(folder / "moving.jpg", "GIF")
    square.resize((50, 5)).save(folder / "small.png")
    (folder / "folder.jpg").mkdir()
    labels = Path(str(folder).replace("/images/", "/labels/"))
    for path in folder.iterdir():
        if not (labels / path.with_suffix(".txt").name).exists():
            (labels / path.with_suffix(".txt").name).write_text(ROW)
    return {
        "cut.bmp": "IMAGE_UNREADABLE", "cut.jpg": "IMAGE_TRUNCATED", "zero.jpg": "IMAGE_UNREADABLE",
        "text.png": "IMAGE_UNREADABLE", "huge.png": "IMAGE_TOO_LARGE", "moving.jpg": "IMAGE_FORMAT",
        "small.png": "IMAGE_TOO_SMALL",
    }  # fmt: skip


def test_odd_pictures_are_trained_on_and_bad_ones_left_out_by_name(data_yaml: Path, tmp_path: Path) -> None:
    bad = {}
    for split in ("train", "val"):
        bad = write_odd_pictures(data_yaml.parent / "images" / split)
    told = do_run(request(tmp_path / "run", data_yaml, epochs=1))
    assert told.result.outcome == "succeeded"
    start = told.of("start")[0]
    assert (start.num_train_images, start.num_val_images) == (10 + 9, 4 + 9)
    warned = [(Path(event.message.partition(": ")[0]).name, event.code) for event in told.of("warning")]
    assert sorted(warned) == sorted([*bad.items(), ("frames.webp", "IMAGE_FIRST_FRAME")] * 2)


BAD_LABELS = {
    "dog 0.5 0.5 0.1 0.1": "LABEL_NOT_A_NUMBER",
    "0 0.5 0.5 0.1": "LABEL_COLUMNS",
    "0 0.5 0.5 0.1 0.1 0.9": "LABEL_COLUMNS",
    "0 nan 0.5 0.1 0.1": "LABEL_NOT_A_NUMBER",
    "0 0.5 0.5 inf 0.1": "LABEL_NOT_A_NUMBER",
    "0 -0.5 0.5 0.1 0.1": "LABEL_NEGATIVE",
    "0 0.5 1.5 0.1 0.1": "LABEL_ABOVE_ONE",
    "2 0.5 0.5 0.1 0.1": "LABEL_CLASS",
    "0.5 0.5 0.5 0.1 0.1": "LABEL_CLASS",
    "-1 0.5 0.5 0.1 0.1": "LABEL_CLASS",
}


def test_bad_rows_are_left_out_with_file_line_and_value(data_yaml: Path, tmp_path: Path) -> None:
    labels = data_yaml.parent / "labels" / "train"
    for number, row in enumerate(BAD_LABELS):
        path = labels / f"{number:03d}.txt"
        path.write_bytes(b"\xef\xbb\xbf" + ROW.encode() + f"{row}\r\n{ROW}".encode())  # and a duplicate
    told = do_run(request(tmp_path / "run", data_yaml, epochs=1), WishAt("cancel", 1))
    warned = {(event.code, event.message) for event in told.of("warning")}
    for number, (row, code) in enumerate(BAD_LABELS.items()):
        path = labels / f"{number:03d}.txt"
        assert any(c == code and f"{path}:2: " in m and m.endswith(f"({row})") for c, m in warned), row
        assert any(c == "LABEL_DUPLICATE" and f"{path}:3: " in m for c, m in warned), row
    assert told.of("start")[0].num_train_images == 10


def test_file_names_that_are_no_text_are_told_in_words_that_can_be_sent(
    data_yaml: Path, tmp_path: Path
) -> None:
    latin = os.fsdecode(b"h\xfctte")
    for path in [*data_yaml.parent.rglob("000.png"), *data_yaml.parent.rglob("000.txt")]:
        path.rename(path.with_stem(latin))
    (data_yaml.parent / "labels" / "train" / f"{latin}.txt").write_text(f"{ROW}9 9 9\n")
    asked = request(tmp_path / "run", data_yaml, epochs=1)
    told = do_run(asked, cache="disk", cache_dir=tmp_path / "cache")
    (warned,) = told.of("warning")
    assert warned.code == "LABEL_COLUMNS" and "h\\xfctte.txt:2" in warned.message
    assert all(encode_line(event, seq=1, ts=0.0).encode() for event in told.events)


def test_many_problems_of_one_kind_are_counted_not_listed(data_yaml: Path, tmp_path: Path) -> None:
    label = data_yaml.parent / "labels" / "train" / "000.txt"
    label.write_text("7 0.5 0.5 0.1 0.1\n" * 500)
    told = do_run(request(tmp_path / "run", data_yaml, epochs=1), WishAt("cancel", 1))
    warned = [event.message for event in told.of("warning") if event.code == "LABEL_CLASS"]
    assert len(warned) == 21 and warned[-1] == "480 more of this kind"


def test_a_class_without_labels_is_told_by_name(data_yaml: Path, tmp_path: Path) -> None:
    data_yaml.write_text(data_yaml.read_text().replace("disc]", "disc, cone, cube]"))
    model = TINY_MODEL.replace("nc: 2", "nc: 4")
    asked = replace(request(tmp_path / "run", data_yaml, epochs=1), architecture_text=model)
    told = do_run(asked)
    (warned,) = told.of("warning")
    assert warned.code == "CLASS_WITHOUT_LABELS" and warned.message.endswith("cone, cube")
    assert told.result.outcome == "succeeded"


# ---- data that no run can be made of


def spoil_all(split: str) -> Callable[[Path], None]:
    def spoil(data_yaml: Path) -> None:
        for path in (data_yaml.parent / "images" / split).iterdir():
            path.write_bytes(b"no picture")

    return spoil


def remove_all(data_yaml: Path) -> None:
    for path in (data_yaml.parent / "images" / "val").iterdir():
        path.unlink()


def without_labels(data_yaml: Path) -> None:
    shutil.rmtree(data_yaml.parent / "labels" / "train")


def list_in_latin(data_yaml: Path) -> None:
    (data_yaml.parent / "train.txt").write_bytes(
        "images/train/000.png\nimages/h\xfctte.png\n".encode("latin-1")
    )
    data_yaml.write_text(data_yaml.read_text().replace("train: images/train", "train: train.txt"))


def entry_too_long(data_yaml: Path) -> None:
    data_yaml.write_text(data_yaml.read_text().replace("train: images/train", f"train: {'x' * 300}"))


@pytest.mark.parametrize(
    ("spoil", "code", "place"),
    [
        (spoil_all("train"), "DATASET_INVALID", "train"),
        (spoil_all("val"), "DATASET_INVALID", "val"),
        (remove_all, "DATASET_INVALID", "val"),
        (without_labels, "NO_LABELS", "train"),
        (list_in_latin, "DATA_ENCODING", "train.txt:2"),
        (entry_too_long, "DATA_PATH", "data.yaml"),
        (Path.unlink, "FILE_MISSING", "data.yaml"),
    ],
)
def test_data_that_cannot_be_trained_on_end_a_run_before_it_begins(
    data_yaml: Path, tmp_path: Path, spoil: Callable[[Path], None], code: str, place: str
) -> None:
    spoil(data_yaml)
    error = failure(request(tmp_path / "run", data_yaml))
    assert isinstance(error, DatasetError)
    assert error.code == code and error.place is not None and error.place.endswith(place)
    assert not (tmp_path / "run").exists()


def test_the_error_of_an_empty_split_shows_what_became_of_its_pictures(
    data_yaml: Path, tmp_path: Path
) -> None:
    spoil_all("val")(data_yaml)
    error = failure(request(tmp_path / "run", data_yaml))
    assert len(error.problems) == 4
    assert {problem.code for problem in error.problems} == {"IMAGE_UNREADABLE"}


# ---- pictures that change under a run


def swap(path: Path, data: bytes) -> None:
    """Replace a file at once: a loader may be reading it."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def grown(path: Path) -> None:
    swap(path, path.read_bytes() + b"more")


def huge(path: Path) -> None:
    swap(path, huge_png(20_000, 20_000).ljust(path.stat().st_size, b"\0"))


def resized(path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 20)).save(buffer, "PNG")
    swap(path, buffer.getvalue().ljust(path.stat().st_size, b"\0"))


def zeroed(path: Path) -> None:
    swap(path, bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Path.unlink, "IMAGE_MISSING"),
        (grown, "IMAGE_CHANGED"),
        (huge, "IMAGE_TOO_LARGE"),
        (resized, "IMAGE_SIZE"),
        (zeroed, "IMAGE_UNREADABLE"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_picture_that_changes_under_a_run_ends_it_by_name(
    data_yaml: Path, tmp_path: Path, change: Callable[[Path], None], code: str, split: str
) -> None:
    folder = data_yaml.parent / "images" / split

    def watch(event: TrainEvent) -> None:
        if event.type == "epoch" and event.epoch == 0:
            for path in list(folder.iterdir()):
                change(path)

    error = failure(request(tmp_path / "run", data_yaml), watch, background_checkpoints=False)
    assert isinstance(error, DatasetError) and error.code == code
    assert error.place is not None and Path(error.place).parent == folder
    assert [path.name for path in checkpoints_in(tmp_path / "run" / "checkpoints")] == ["e0001-b000000.ckpt"]


def test_what_is_cached_may_vanish(data_yaml: Path, tmp_path: Path) -> None:
    def watch(event: TrainEvent) -> None:
        if event.type == "phase" and event.phase == "training":
            shutil.rmtree(data_yaml.parent / "images", ignore_errors=True)

    assert do_run(request(tmp_path / "run", data_yaml, epochs=1), watch=watch, cache="ram").result.outcome
