"""What the scan of pictures and label files takes, what it leaves out, and that training agrees with it."""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.pictures import huge_png
from yolocore.data.images import read_image
from yolocore.data.scan import check_image, scan_images
from yolocore.errors import DatasetError
from yolocore.spec.labels import MAX_LABEL_BYTES

QUARTERS = np.zeros((40, 60, 3), np.uint8)  # no turn or mirroring leaves it as it is
QUARTERS[:20, :30], QUARTERS[:20, 30:], QUARTERS[20:, :30] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
PICTURE = Image.fromarray(QUARTERS)
FINE = {"quality": 95, "subsampling": 0}
STORED = {  # how a camera of each orientation lays out what is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_scan_and_training_turn_pictures_the_same_way(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"webp": {"lossless": True}, "jpg": FINE}.get(suffix, {})
    path = tmp_path / f"a.{suffix}"
    stored = PICTURE.transpose(STORED[orientation]) if orientation in STORED else PICTURE
    stored.save(path, exif=exif, **options)
    assert check_image(path) == ((60, 40), [])
    upright = read_image(path)[..., ::-1]
    assert np.abs(upright.astype(int) - QUARTERS).max() <= (16 if suffix == "jpg" else 0)


PIXELS = {"png": "1 L LA P RGBA I;16", "tif": "1 L LA P RGBA I;16 CMYK", "jpg": "1 L CMYK", "bmp": "1 L P"}


@pytest.mark.parametrize(
    ("suffix", "mode"), [(suffix, mode) for suffix, modes in PIXELS.items() for mode in modes.split()]
)
def test_every_kind_of_pixel_that_is_taken_can_be_trained_on(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"a.{suffix}"
    picture = PICTURE.quantize() if mode == "P" else PICTURE.convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture, np.uint16) * 257)
    picture.save(path)
    assert check_image(path) == ((60, 40), [])
    assert read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "mpo"])
def test_of_several_frames_the_first_is_used(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    others = [Image.new("RGB", PICTURE.size, colour) for colour in ("black", "white")]
    PICTURE.save(path, save_all=True, append_images=others, **options)
    size, problems = check_image(path)
    codes = [problem.code for problem in problems]
    if suffix == "gif":
        assert (size, codes) == (None, ["IMAGE_FORMAT"])
        return
    assert (size, codes) == ((60, 40), [] if suffix == "mpo" else ["IMAGE_FIRST_FRAME"])
    assert np.abs(read_image(path)[..., ::-1].astype(int) - QUARTERS)[:16, :24].max() <= 8


def huge_jpeg() -> bytes:
    data = bytearray(encoded(PICTURE, "JPEG"))
    place = data.find(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 30_000, 30_000)
    return bytes(data)


def huge_bmp() -> bytes:
    data = bytearray(encoded(PICTURE, "BMP"))
    data[18:26] = struct.pack("<ii", 30_000, 30_000)
    return bytes(data)


def cut(kind: str, share: float, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
        data = encoded(noise, kind, **options)
        return data[: int(len(data) * share)]

    return make


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"", "IMAGE_UNREADABLE"),
        (lambda: b"\xff\xd8", "IMAGE_UNREADABLE"),
        (lambda: b"<html></html>", "IMAGE_UNREADABLE"),
        (lambda: os.urandom(5000), "IMAGE_UNREADABLE"),
        (cut("JPEG", 0.5), "IMAGE_TRUNCATED"),
        (cut("JPEG", 0.99), "IMAGE_TRUNCATED"),
        (cut("PNG", 0.5), "IMAGE_UNREADABLE"),
        (cut("PNG", 0.99), "IMAGE_UNREADABLE"),
        (cut("WEBP", 0.9), "IMAGE_UNREADABLE"),
        (cut("BMP", 0.9), "IMAGE_UNREADABLE"),
        (cut("TIFF", 0.9), "IMAGE_UNREADABLE"),
        (cut("TIFF", 0.5, compression="tiff_deflate"), "IMAGE_UNREADABLE"),
        (lambda: encoded(Image.new("F", (20, 20)), "TIFF"), "IMAGE_UNREADABLE"),
        (lambda: encoded(Image.new("I", (20, 20)), "TIFF"), "IMAGE_UNREADABLE"),
        (lambda: encoded(PICTURE, "GIF"), "IMAGE_FORMAT"),
        (lambda: encoded(PICTURE, "ICO"), "IMAGE_FORMAT"),
        (lambda: encoded(Image.new("RGB", (9, 100)), "PNG"), "IMAGE_TOO_SMALL"),
        (lambda: huge_png(20_000, 20_000), "IMAGE_TOO_LARGE"),
        (lambda: huge_png(178_001, 1_000), "IMAGE_TOO_LARGE"),
        (huge_jpeg, "IMAGE_TOO_LARGE"),
        (huge_bmp, "IMAGE_TOO_LARGE"),
    ],
)
def test_what_cannot_be_used_is_named_without_decoding_what_is_huge(
    tmp_path: Path, make: Callable[[], bytes], code: str
) -> None:
    path = tmp_path / "a.jpg"  # whatever it holds
    path.write_bytes(make())
    size, (problem,) = check_image(path)
    assert (size, problem.code, problem.file) == (None, code, str(path))
    assert " at 0x" not in problem.message and "BytesIO" not in problem.message


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate((1 << 30) + 1)  # a hole
    for name in ("folder.jpg", "pipe.jpg", "loop.jpg", "none.jpg", "x" * 300 + ".jpg", "a\0b.jpg"):
        size, (problem,) = check_image(tmp_path / name)
        assert (size, problem.code) == (None, "IMAGE_MISSING")
    assert check_image(tmp_path / "large.jpg")[1][0].code == "IMAGE_TOO_LARGE"


SEEDS = [
    encoded(PICTURE, "JPEG"),
    encoded(PICTURE, "PNG"),
    encoded(PICTURE, "TIFF"),
    encoded(PICTURE, "BMP"),
    encoded(PICTURE, "WEBP"),
]


@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_no_bytes_break_the_scan_or_the_reading(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, seed: int
) -> None:
    rng = random.Random(seed)
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        spoilt[rng.randrange(min(len(spoilt), 400))] = rng.randrange(256)
    path = tmp_path_factory.getbasetemp() / "fuzz.jpg"
    path.write_bytes(spoilt)
    size, problems = check_image(path)
    assert size is not None or problems
    if size is None:
        return
    try:
        assert read_image(path).shape[2] == 3
    except DatasetError as error:
        assert error.place == str(path)


def write_pair(folder: Path, label: bytes) -> Path:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), QUARTERS)
    (folder / "labels" / "a.txt").write_bytes(label)
    return folder / "images" / "a.png"


@pytest.mark.parametrize(
    ("label", "code"),
    [
        (b"0 .5 .5 .1 .1\n\xff\n", "LABEL_ENCODING"),
        ("0 .5 .5 .1 .1\n".encode("utf-16"), "LABEL_ENCODING"),
        (b"0 .5 .5 .1 .1\n" * (MAX_LABEL_BYTES // 14 + 1), "LABEL_TOO_LARGE"),
    ],
)
def test_a_picture_goes_with_a_label_file_that_cannot_be_read(
    tmp_path: Path, label: bytes, code: str
) -> None:
    result = scan_images([write_pair(tmp_path, label)], num_classes=1)
    (problem,) = result.problems
    assert (result.images, result.corrupt, problem.code) == ([], 1, code)
    assert problem.file is not None and problem.file.endswith("a.txt") and "left out" in problem.message


def test_a_label_file_that_is_a_folder_counts_as_none(tmp_path: Path) -> None:
    picture = write_pair(tmp_path, b"")
    (tmp_path / "labels" / "a.txt").unlink()
    (tmp_path / "labels" / "a.txt").mkdir()
    result = scan_images([picture], num_classes=1)
    assert (len(result.images), result.missing, result.problems) == (1, 1, [])
