"""What is found is told in the picture's own pixels; what cannot be read is named and gone past."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.support.shared import datasets_dir, weights_dir
from tests.yolocore.commands.conftest import Finished
from yolocore.__main__ import main
from yolocore.detector import load_detector
from yolocore.errors import DatasetError
from yolocore.predict import Predictor, Thresholds, find_sources, fitted


@pytest.fixture()
def pictures(finished: Finished, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    shutil.copytree(finished.data_yaml.parent / "images" / "val", folder)
    return folder


def predict(finished: Finished, source: Path | str, out: Path, *more: str) -> int:
    return main(["predict", f"--weights={finished.best}", f"--source={source}", f"--out={out}", *more])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]


def write_video(path: Path, num_frames: int = 5, size_wh: tuple[int, int] = (96, 64)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size_wh)
    rng = np.random.default_rng(0)
    for number in range(num_frames):
        frame = rng.integers(90, 130, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
        cv2.rectangle(frame, (10 + number, 10), (30 + number, 30), (230, 40, 40), -1)
        writer.write(frame)
    writer.release()
    return path


def test_a_folder_with_a_broken_picture(
    finished: Finished, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "001.png").write_bytes((pictures / "001.png").read_bytes()[:300])
    (pictures / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    options = ["--conf=0.001", "--max-det=4", "--save-txt", "--save-conf", "--save-crop"]
    assert predict(finished, pictures, out, *options) == 3
    told = capsys.readouterr()
    assert "001.png" in told.err and "1 could not be read" in told.err
    assert len(told.out.splitlines()) == 5 and str(pictures / "000.png") in told.out.splitlines()[0]
    found = lines(out)
    names = [f"{number:03d}" for number in (0, 2, 3, 4, 5)]
    assert [Path(line["source"]).stem for line in found] == names
    for line, name in zip(found, names, strict=True):
        assert (line["width"], line["height"], line["frame"]) == (72, 72, None)
        assert 0 < len(line["detections"]) <= 4
        for item in line["detections"]:
            assert item["name"] == ["square", "disc"][item["class"]] and 0.001 < item["score"] <= 1
            x1, y1, x2, y2 = item["box_xyxy_px"]
            assert 0 <= x1 <= x2 <= 72 and 0 <= y1 <= y2 <= 72
        drawn = cv2.imread(str(out / f"{name}.jpg"))
        assert drawn is not None and drawn.shape == (72, 72, 3)
        rows = (out / "labels" / f"{name}.txt").read_text().splitlines()
        assert [int(row.split()[0]) for row in rows] == [item["class"] for item in line["detections"]]
    assert list((out / "crops").rglob("*.jpg"))


def test_a_pattern_and_a_file_and_what_is_asked_for(
    finished: Finished, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--no-pictures", "--json", "--conf=0.0005"]
    assert predict(finished, pictures / "00[01].png", tmp_path / "a", *options) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines(tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["detections.jsonl"]
    assert predict(finished, pictures / "000.png", tmp_path / "b", *options, "--classes", "1") == 0
    every, discs = lines(tmp_path / "a")[0]["detections"], lines(tmp_path / "b")[0]["detections"]
    assert discs == [item for item in every if item["class"] == 1]
    assert predict(finished, pictures / "000.png", tmp_path / "c", *options, "--agnostic", "--iou=0") == 0
    assert len(lines(tmp_path / "c")[0]["detections"]) < len(every)


def test_a_video_and_one_that_is_cut_off(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, out = write_video(tmp_path / "film.avi"), tmp_path / "out"
    assert predict(finished, video, out, "--conf=0.001", "--save-txt") == 0
    found = lines(out)
    assert [line["frame"] for line in found] == [0, 1, 2, 3, 4]
    assert {(line["width"], line["height"]) for line in found} == {(96, 64)}
    assert (out / "labels" / "film_0.txt").exists()
    drawn = cv2.VideoCapture(str(out / "film.mp4"))
    shapes = []
    while (frame := drawn.read())[0]:
        shapes.append(frame[1].shape)
    assert shapes == [(64, 96, 3)] * 5
    assert abs(drawn.get(cv2.CAP_PROP_FPS) - 10) < 0.1

    half = video.read_bytes()[: video.stat().st_size // 2]
    (tmp_path / "half.avi").write_bytes(half)
    assert predict(finished, tmp_path / "half.avi", tmp_path / "half", "--no-pictures") == 1
    assert "VIDEO_TRUNCATED" in capsys.readouterr().err and lines(tmp_path / "half")

    (tmp_path / "broken.avi").write_bytes(b"RIFF no video")
    assert predict(finished, tmp_path / "broken.avi", tmp_path / "none") == 1
    assert "VIDEO_UNREADABLE" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["absent.jpg", "absent/*.jpg", ".", "notes.txt"])
def test_a_source_that_is_none_is_named(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no picture")
    with pytest.raises(DatasetError) as caught:
        find_sources(source)
    assert caught.value.place == source


def test_options_that_contradict_the_weights(
    finished: Finished, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(finished, pictures, tmp_path / "a", "--classes", "7") == 1
    assert "the classes 0 to 1" in capsys.readouterr().err
    assert predict(finished, pictures, tmp_path / "a", "--save-conf") == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("hw", [(100, 37), (37, 100), (64, 64), (333, 500)])
def test_a_picture_is_fitted_so_that_boxes_go_back(hw: tuple[int, int]) -> None:
    image = np.zeros((*hw, 3), np.uint8)
    image[hw[0] // 2 :, hw[1] // 2 :] = (0, 0, 255)  # red, BGR
    for square in (False, True):
        pixels, (gain_h, gain_w), (pad_w, pad_h) = fitted(image, 64, 32, square=square)
        assert max(pixels.shape[:2]) == 64 and all(side % 32 == 0 for side in pixels.shape[:2])
        assert not square or pixels.shape[:2] == (64, 64)
        y = round(hw[0] * 0.75 * gain_h + pad_h)
        x = round(hw[1] * 0.75 * gain_w + pad_w)
        assert pixels[y, x].tolist() == [255, 0, 0]
        assert pixels[-1, -1].tolist() in ([255, 0, 0], [114] * 3)
        border = (pixels == 114).all(-1)
        assert border.all(0)[: int(pad_w)].all() and border.all(1)[: int(pad_h)].all()


def test_published_weights_find_what_is_in_a_photograph(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(datasets_dir() / "bccd_mini_yolo.zip") as archive:
        name = next(item for item in archive.namelist() if item.endswith((".jpg", ".png")))
        (tmp_path / "a.jpg").write_bytes(archive.read(name))
    detector = load_detector(weights_dir() / "yolov5n.pt", imgsz=320)
    image = cv2.imread(str(tmp_path / "a.jpg"))
    assert image is not None
    few = Predictor(detector, Thresholds(conf=0.05, max_det=3), torch.device("cpu")).detect(image)
    assert few.shape == (3, 6) and (np.diff(few[:, 4]) <= 0).all()
    assert (few[:, 2:4] <= [image.shape[1], image.shape[0]]).all()
