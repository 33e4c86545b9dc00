"""Archives made here: tar formats, links, bombs and limits that the collected ones do not cover."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from PIL import Image

from tests.support.packing import without_advice
from worker.ingest.archive import archive_format
from worker.ingest.limits import Limits
from worker.ingest.run import ingest_archive

YAML = b"train: images/train\nval: images/val\nnames: [cat, dog]\n"


def png(seed: int, width: int = 24, height: int = 20) -> bytes:
    """Return a small picture that differs with the seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def good_files() -> dict[str, bytes]:
    """Return the files of a small valid dataset."""
    return {
        "data.yaml": YAML,
        "images/train/a.png": png(1),
        "labels/train/a.txt": b"0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.1 0.1\n",
        "images/train/b.png": png(2),
        "images/val/c.png": png(3),
        "labels/val/c.txt": b"1 0.5 0.5 1 1\n",
    }


def make_zip(files: dict[str, bytes]) -> bytes:
    """Pack files as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def as_v7(content: bytes) -> bytes:
    """Make the headers of a tar those of the oldest form, which has no magic word."""
    out = bytearray(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for start in [member.offset for member in archive]:
            out[start + 257 : start + 512] = bytes(255)
            out[start + 148 : start + 156] = b" " * 8
            out[start + 148 : start + 156] = f"{sum(out[start : start + 512]):06o}\0 ".encode()
    return bytes(out)


def make_tar(files: dict[str, bytes], extra: tarfile.TarInfo | None = None) -> bytes:
    """Pack files as a plain tar, with one more header if given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo("./" + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if extra is not None:
            archive.addfile(extra)
    return buffer.getvalue()


def judged(content: bytes, tmp_path: Path, **limits: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ingest an archive; return the result and the problems."""
    folder = tmp_path / "task"
    folder.mkdir()
    (tmp_path / "upload").write_bytes(content)
    result = ingest_archive(tmp_path / "upload", folder, Limits.from_dict(limits))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return result, without_advice(report["problems"])


@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        ("zip", lambda files: make_zip(files)),
        ("tar", lambda files: make_tar(files)),
        ("tar", lambda files: as_v7(make_tar(files))),
        ("tar.gz", lambda files: gzip.compress(make_tar(files))),
        ("tar.zst", lambda files: zstandard.compress(make_tar(files))),
    ],
)
def test_all_formats_make_the_same_dataset(
    kind: str, pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path
) -> None:
    result, problems = judged(pack(good_files()), tmp_path)
    assert archive_format(tmp_path / "upload") == kind
    assert problems == []
    (tmp_path / "other").mkdir()
    reference, _ = judged(make_zip(good_files()), tmp_path / "other")
    assert result == reference
    assert result["splits"] == {"train": 2, "val": 1, "test": 0} and result["num_boxes"] == 3


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("images/train/x.png")
    info.type = kind
    info.linkname = "/etc/passwd"
    result, problems = judged(make_tar(good_files(), info), tmp_path)
    assert result["status"] == "invalid"
    assert problems[0]["code"] == "LINK_ENTRY" and problems[0]["file"] == "images/train/x.png"


@pytest.mark.parametrize("cut", [0.3, 0.9])
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_cut_off_tar_is_corrupt(pack: Callable[[bytes], bytes], cut: float, tmp_path: Path) -> None:
    content = pack(make_tar(good_files()))
    result, problems = judged(content[: int(len(content) * cut)], tmp_path)
    assert result["status"] == "invalid"
    assert problems[0]["code"] in {"ARCHIVE_CORRUPT", "NO_IMAGES"}


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_tar_that_inflates_without_end_is_stopped(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    files = good_files() | {"zeros.bin": bytes(64 << 20)}
    result, problems = judged(pack(make_tar(files)), tmp_path)
    assert result["status"] == "invalid" and problems[0]["code"] == "ARCHIVE_BOMB"


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip(good_files()))
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    result, problems = judged(bytes(content), tmp_path)
    assert result["status"] == "invalid" and problems[0]["code"] == "ENCRYPTED_ENTRY"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_entries": 3}, "ARCHIVE_TOO_MANY_ENTRIES"),
        ({"max_total_bytes": 500}, "ARCHIVE_TOO_LARGE"),
        ({"max_texts_bytes": 20}, "ARCHIVE_TOO_LARGE"),
    ],
)
def test_limits_refuse(limits: dict[str, int], code: str, tmp_path: Path) -> None:
    result, problems = judged(make_zip(good_files()), tmp_path, **limits)
    assert result["status"] == "invalid" and problems[0]["code"] == code


def listing_of(count: int, declared: int) -> bytes:
    """Return a zip of one empty file and a listing of `count` entries that says it has `declared`."""
    local = struct.pack("<4s5HIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    fixed = struct.pack("<4sBB5HIIIHHHHHII", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 33, 0, 0, 0, 8, *[0] * 6)
    listing = b"".join(fixed + b"%08d" % number for number in range(count))
    end64 = struct.pack(
        "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, declared, declared, len(listing), len(local)
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + len(listing), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 3) + b"bye"
    return local + listing + end64 + locator + end


def test_a_listing_of_a_million_entries_is_refused_unread(tmp_path: Path) -> None:
    content = listing_of(1_000_000, 1_000_000)
    tracemalloc.start()
    try:
        result, problems = judged(content, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert (result["status"], [p["code"] for p in problems]) == ("invalid", ["ARCHIVE_TOO_MANY_ENTRIES"])


def test_an_entry_without_a_name_is_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip({**good_files(), "Q": b""}))
    entry = content.rindex(b"PK\x01\x02")
    # The one letter of its name becomes part of what follows the name.
    content[entry + 28 : entry + 32] = struct.pack("<HH", 0, 1)
    result, problems = judged(bytes(content), tmp_path)
    assert result["status"] == "invalid"
    assert [(problem["code"], problem["message"]) for problem in problems] == [
        ("UNSAFE_PATH", "unsafe entry: the name is empty")
    ]


def test_a_listing_that_points_outside_of_the_archive_is_damage(tmp_path: Path) -> None:
    content = make_zip(good_files())
    end = content.rindex(b"PK\x05\x06")
    longer = (struct.unpack_from("<I", content, end + 16)[0] + 1).to_bytes(4, "little")
    result, problems = judged(content[: end + 16] + longer + content[end + 20 :], tmp_path)
    assert result["status"] == "invalid"
    assert [problem["code"] for problem in problems] == ["ARCHIVE_CORRUPT"]


@pytest.mark.parametrize("declared", [0, 3, 501])
def test_a_listing_may_lie_about_its_length(declared: int, tmp_path: Path) -> None:
    result, problems = judged(listing_of(501, declared), tmp_path, max_entries=500)
    assert (result["status"], [p["code"] for p in problems]) == ("invalid", ["ARCHIVE_TOO_MANY_ENTRIES"])


def test_a_tar_is_read_no_further_than_the_last_entry_allowed(tmp_path: Path) -> None:
    tar = make_tar({f"{number}.txt": b"" for number in range(501)})[:-1500]
    result, problems = judged(tar, tmp_path, max_entries=499)
    assert (result["status"], [p["code"] for p in problems]) == ("invalid", ["ARCHIVE_TOO_MANY_ENTRIES"])


def test_a_picture_over_the_pixel_limit_is_left_out_undecoded(tmp_path: Path) -> None:
    files = good_files() | {"images/train/big.png": png(9, width=200, height=100)}
    result, problems = judged(make_zip(files), tmp_path, max_image_pixels=10_000)
    assert result["status"] == "ready" and result["num_images"] == 3
    assert [(p["code"], p["file"]) for p in problems] == [("IMAGE_TOO_LARGE", "images/train/big.png")]


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    content = bytearray(make_zip(good_files()))
    at = content.index(b"labels/val/c.txt") + len(b"labels/val/c.txt")
    content[at + 2] ^= 0xFF
    result, problems = judged(bytes(content), tmp_path)
    assert result["status"] == "invalid"
    assert problems[0]["code"] == "ARCHIVE_CORRUPT" and problems[0]["file"] == "labels/val/c.txt"


@pytest.mark.parametrize("values", [{"nonsense": 1}, {"max_entries": 0}, {"max_entries": "many"}])
def test_a_task_with_wrong_limits_is_a_mistake_of_ours(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="limit"):
        Limits.from_dict(values)
