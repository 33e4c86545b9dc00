"""Detection in pictures and videos that have no labels: files in, boxes in their own pixels out.

It must not know commands, or what is done with the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from yolocore.data.images import read_image
from yolocore.data.letterbox import apply_letterbox, plan_letterbox
from yolocore.data.pixels import ImageArray, as_image
from yolocore.data.scan import SUFFIXES
from yolocore.detector import Detector
from yolocore.errors import ConfigError, DatasetError
from yolocore.model.fuse import folded_copy
from yolocore.ops.boxes import scale_boxes_to_image
from yolocore.ops.nms import non_max_suppression

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
ENOUGH = 0.9  # of the frames that a video announces, which some formats only estimate

Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Thresholds:
    """Which detections count: YOLOv5's for detection. `classes` None keeps all."""

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 1000
    classes: tuple[int, ...] | None = None
    agnostic: bool = False


class Predictor:
    """A folded detector that takes pictures of any size, one at a time. Raises ConfigError."""

    def __init__(self, detector: Detector, thresholds: Thresholds, device: torch.device) -> None:
        wrong = [cls for cls in thresholds.classes or () if not 0 <= cls < len(detector.names)]
        if wrong:
            raise ConfigError(
                f"the weights know the classes 0 to {len(detector.names) - 1}",
                place="--classes",
                value=str(wrong[0]),
            )
        self._network = folded_copy(detector.network)
        self._imgsz = detector.imgsz
        self._stride = detector.stride
        self._thresholds = thresholds
        self._device = device

    @torch.no_grad()
    def detect(self, image: ImageArray) -> Rows:
        """Return rows (n, 6) x1, y1, x2, y2, score, class in pixels of a BGR picture, best score first."""
        pixels, gain_hw, pad_wh = fitted(image, self._imgsz, self._stride)
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self._device).float() / 255
        decoded = self._network(batch)[0]
        asked = self._thresholds
        (found,) = non_max_suppression(
            decoded,
            conf_thres=asked.conf,
            iou_thres=asked.iou,
            max_det=asked.max_det,
            classes=asked.classes,
            agnostic=asked.agnostic,
        )
        rows: Rows = found.cpu().numpy()
        rows[:, :4] = scale_boxes_to_image(rows[:, :4], (image.shape[0], image.shape[1]), gain_hw, pad_wh)
        return rows


def fitted(
    image: ImageArray, imgsz: int, stride: int, *, square: bool = False
) -> tuple[ImageArray, tuple[float, float], tuple[float, float]]:
    """Return a BGR picture as the network takes it, RGB, with its gains (h, w) and grey borders (w, h).

    The longer side becomes `imgsz`; the shorter one is padded to a multiple of `stride`, or to a square.
    """
    height, width = image.shape[:2]
    plan = plan_letterbox((height, width), (imgsz, imgsz), auto=not square, stride=stride)
    pixels = as_image(cv2.cvtColor(apply_letterbox(image, plan), cv2.COLOR_BGR2RGB))
    gain_hw = (plan.size_wh[1] / height, plan.size_wh[0] / width)
    # An odd padding has its smaller half above and to the left.
    return pixels, gain_hw, (float(round(plan.pad_wh[0] - 0.1)), float(round(plan.pad_wh[1] - 0.1)))


def find_sources(text: str) -> list[Path]:
    """Return the pictures and videos of a file, a folder (not what is below it) or a pattern, sorted.

    Of a folder or a pattern, files of other kinds are left out. Raises DatasetError where nothing is left.
    """
    path = Path(text)
    if path.is_file():
        if not is_known(path):
            raise DatasetError(
                f"{path.suffix or 'a file without a suffix'} is neither a picture nor a video",
                code="IMAGE_FORMAT",
                place=text,
            )
        return [path]
    found = path.iterdir() if path.is_dir() else Path(path.anchor).glob(text.removeprefix(path.anchor))
    known = sorted(item for item in found if item.is_file() and is_known(item))
    if not known:
        raise DatasetError(
            "there is no picture and no video" if path.is_dir() else "there is no such file",
            code="FILE_MISSING",
            place=text,
        )
    return known


def is_known(path: Path) -> bool:
    """Tell by its suffix whether a file is a picture or a video that can be read."""
    return path.suffix.lower() in SUFFIXES or is_video(path)


def is_video(path: Path) -> bool:
    """Tell by its suffix whether a file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


class Video:
    """The frames of a file, BGR, one after the other, each only as long as it is looked at.

    Raises DatasetError where it is no video, and after the last frame where many are missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DatasetError("the file is not a readable video", code="VIDEO_UNREADABLE", place=str(path))
        self.frames_per_s: float = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self._announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def __iter__(self) -> Iterator[ImageArray]:
        count = 0
        try:
            while True:
                there, frame = self._capture.read()
                if not there:
                    break
                count += 1
                yield as_image(frame)
        finally:
            self._capture.release()
        if count == 0 or count < ENOUGH * self._announced:
            raise DatasetError(
                f"the video ends after {count} of {max(self._announced, 0)} frames",
                code="VIDEO_TRUNCATED",
                place=str(self._path),
            )


def read_picture(path: Path) -> ImageArray:
    """Return a picture BGR, upright; raises DatasetError that names it."""
    return read_image(path, str(path))


def described(
    rows: Rows, names: Sequence[str], *, source: str, size_hw: tuple[int, int], frame: int | None
) -> dict[str, Any]:
    """Return what was found as plain JSON values; boxes in pixels, frames from 0. Pure."""
    return {
        "source": source,
        "frame": frame,
        "width": size_hw[1],
        "height": size_hw[0],
        "detections": [
            {
                "class": int(row[5]),
                "name": names[int(row[5])],
                "score": round(float(row[4]), 5),
                "box_xyxy_px": [round(float(value), 2) for value in row[:4]],
            }
            for row in rows
        ],
    }
