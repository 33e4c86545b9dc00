"""Reading, resizing and caching: what comes out is right, read-only, and the same from every cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import huge_png
from tests.yolocore.data.conftest import MakeSamples
from yolocore.data import cache
from yolocore.data.images import ImageStore, read_image, resize_image, resized_hw
from yolocore.errors import DatasetError


@pytest.mark.parametrize(
    ("hw", "imgsz", "expected"),
    [
        ((480, 640), 320, (240, 320)),
        ((240, 320), 640, (480, 640)),
        ((100, 147), 640, (436, 640)),  # 641 by the reference's floating point
        ((12, 4000), 320, (1, 320)),
        ((64, 64), 64, (64, 64)),
        ((1, 5000), 32, (1, 32)),
    ],
)
def test_resized_shapes(hw: tuple[int, int], imgsz: int, expected: tuple[int, int]) -> None:
    assert resized_hw(hw, imgsz) == expected


def test_no_side_ever_exceeds_the_image_size() -> None:
    for imgsz in (320, 416, 640):
        for width in range(10, 3000):
            assert max(resized_hw((10, width), imgsz)) == imgsz


def test_area_is_for_shrinking_only() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    down = cv2.resize(image, (20, 20), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resize_image(image, 20, area=True), down)
    assert not np.array_equal(resize_image(image, 31, area=False), resize_image(image, 31, area=True))
    np.testing.assert_array_equal(resize_image(image, 64, area=False), resize_image(image, 64, area=True))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1"])
def test_every_mode_becomes_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    grey = Image.new("L", (20, 12), 255 if mode == "1" else 200)
    if mode == "I;16":
        Image.fromarray(np.full((12, 20), 200 * 257, dtype=np.uint16)).save(path)
    elif mode == "P":
        grey.quantize().save(path)
    else:
        grey.convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (12, 20, 3)
    assert image.dtype == np.uint8
    assert (image == (255 if mode == "1" else 200)).all()


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (30, 20, 3)


def test_unusable_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 90).convert("RGB").save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-400])
    unended = tmp_path / "unended.jpg"
    unended.write_bytes(whole.read_bytes()[:-2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    Image.new("F", (20, 20)).save(tmp_path / "float.tif")
    (tmp_path / "huge.png").write_bytes(huge_png(20_000, 20_000))
    for name, code in (
        ("cut.jpg", "IMAGE_TRUNCATED"),
        ("unended.jpg", "IMAGE_TRUNCATED"),
        ("empty.png", "IMAGE_UNREADABLE"),
        ("float.tif", "IMAGE_UNREADABLE"),
        ("huge.png", "IMAGE_TOO_LARGE"),
        ("text.png", "IMAGE_UNREADABLE"),
        ("none.png", "IMAGE_MISSING"),
    ):
        with pytest.raises(DatasetError, match=name) as caught:
            read_image(tmp_path / name)
        assert caught.value.code == code
    assert read_image(unended, strict=False).shape == (64, 64, 3)


def test_a_size_other_than_recorded_is_refused(make_samples: MakeSamples) -> None:
    samples = make_samples(1)
    cv2.imwrite(str(samples[0].path), np.zeros((200, 100, 3), np.uint8))
    with pytest.raises(DatasetError, match="000.png"):
        ImageStore(samples, 32).get(0)


@pytest.mark.parametrize("name", ["grey.pfm", "colour.pfm"])
def test_pictures_of_floats_have_three_channels_too(tmp_path: Path, name: str) -> None:
    shape = (12, 20) if name == "grey.pfm" else (12, 20, 3)
    cv2.imwrite(str(tmp_path / name), np.ones(shape, np.float32))
    assert read_image(tmp_path / name).shape == (12, 20, 3)


def test_bytes_that_changed_since_the_check_are_refused(make_samples: MakeSamples) -> None:
    (sample,) = make_samples(1)
    sample = replace(sample, num_bytes=sample.path.stat().st_size)
    ImageStore([sample], 32).get(0)
    sample.path.write_bytes(sample.path.read_bytes() + b"more")
    with pytest.raises(DatasetError, match="000.png") as caught:
        ImageStore([sample], 32).get(0)
    assert caught.value.code == "IMAGE_CHANGED"


@pytest.mark.parametrize("kind", ["none", "ram", "disk"])
def test_every_cache_gives_the_same_read_only_pictures(
    make_samples: MakeSamples, tmp_path: Path, kind: cache.CacheKind
) -> None:
    samples = make_samples(5)
    seen: list[tuple[int, int]] = []
    store = ImageStore(
        samples,
        48,
        cache=kind,
        cache_dir=tmp_path / "cache",
        num_threads=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert store.cache_kind == kind
    assert len(store) == 5
    assert seen == ([] if kind == "none" else [(done, 5) for done in range(1, 6)])
    for index, sample in enumerate(samples):
        image = store.get(index)
        assert image.shape == (*resized_hw((sample.height, sample.width), 48), 3)
        np.testing.assert_array_equal(image, resize_image(read_image(sample.path), 48, area=False))
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0, 0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            image.setflags(write=True) if kind == "disk" else image[:1].setflags(write=True)


def test_a_pack_is_used_again_and_named_by_content(make_samples: MakeSamples, tmp_path: Path) -> None:
    samples, folder = make_samples(3), tmp_path / "cache"
    first = ImageStore(samples, 48, cache="disk", cache_dir=folder)
    images = [first.get(i).copy() for i in range(3)]
    for sample in samples:
        sample.path.unlink()
    again = ImageStore(samples, 48, cache="disk", cache_dir=folder)
    for index in range(3):
        np.testing.assert_array_equal(again.get(index), images[index])
    assert len(list(folder.glob("*.pack"))) == 1
    keys = {first.content_key(), ImageStore(samples, 64).content_key()}
    keys |= {ImageStore(samples, 48, area=True).content_key(), ImageStore(samples[:2], 48).content_key()}
    assert len(keys) == 4


def test_a_failed_pack_leaves_nothing(make_samples: MakeSamples, tmp_path: Path) -> None:
    samples, folder = make_samples(4), tmp_path / "cache"
    samples[2].path.write_text("no picture")
    with pytest.raises(DatasetError, match="002.png"):
        ImageStore(samples, 48, cache="disk", cache_dir=folder, num_threads=2)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_a_cut_pack_is_made_anew(make_samples: MakeSamples, tmp_path: Path) -> None:
    samples, folder = make_samples(3), tmp_path / "cache"
    image = ImageStore(samples, 48, cache="disk", cache_dir=folder).get(2).copy()
    pack = next(folder.glob("*.pack"))
    pack.write_bytes(pack.read_bytes()[:100])
    np.testing.assert_array_equal(ImageStore(samples, 48, cache="disk", cache_dir=folder).get(2), image)


def test_what_does_not_fit_steps_down_with_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    pack = tmp_path / "cache" / "a.pack"
    huge = 10**18
    assert cache.choose_cache("ram", huge, pack, warnings.append) == "none"
    assert ["memory" in warnings[0], "disk" in warnings[1]] == [True, True]
    assert cache.choose_cache("disk", 1, None, warnings.append) == "none"
    assert cache.choose_cache("none", huge, None, warnings.append) == "none"
    assert len(warnings) == 3


@pytest.mark.parametrize(("size_bytes", "kind"), [(800, "ram"), (801, "disk")])
def test_a_fifth_of_the_free_memory_stays_free(tmp_path: Path, size_bytes: int, kind: str) -> None:
    warnings: list[str] = []
    pack = tmp_path / "a.pack"
    chosen = cache.choose_cache("ram", size_bytes, pack, warnings.append, free_memory=lambda: 1000)
    assert (chosen, len(warnings)) == (kind, size_bytes == 801)


def test_a_pack_that_is_there_needs_no_more_space(tmp_path: Path) -> None:
    pack = tmp_path / "a.pack"
    size_bytes = shutil.disk_usage(tmp_path).free + (1 << 30)  # a hole in a file takes no space
    with pack.open("wb") as file:
        file.truncate(size_bytes)
    assert cache.choose_cache("disk", size_bytes, pack, warn=pytest.fail) == "disk"
    assert cache.choose_cache("disk", size_bytes + 1, pack, warn=lambda message: None) == "none"


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(tmp_path: Path) -> None:
    warnings: list[str] = []
    (tmp_path / "file").write_text("")
    assert cache.choose_cache("disk", 1, tmp_path / "file/cache/a.pack", warnings.append) == "none"
    assert "folder" in warnings[0]


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 2000 * 1024),
        ({"memory.max": "max\n", "memory.current": "5\n"}, 2000 * 1024),
        ({"memory.max": "900000\n", "memory.current": "500000\n"}, 400_000),
        (
            {
                "memory.max": "900000\n",
                "memory.current": "500000\n",
                "memory.stat": "anon 1\ninactive_file 9\n",
            },
            400_009,
        ),
        ({"memory.max": "900000\n", "memory.current": "950000\n"}, 0),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "500000",
            },
            2000 * 1024,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "600000",
                "memory/memory.usage_in_bytes": "500000",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 11\n",
            },
            100_011,
        ),
    ],
)
def test_free_memory_is_the_kernels_figure_capped_by_the_control_group(
    tmp_path: Path, files: dict[str, str], free: int
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    2000 kB\n")
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cache.available_memory_bytes(meminfo, tmp_path) == free


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    make_samples: MakeSamples, tmp_path: Path
) -> None:
    samples, folder = make_samples(3), tmp_path / "cache"
    warnings: list[str] = []
    pack = folder / f"{ImageStore(samples, 48).content_key()}.pack"
    pack.mkdir(parents=True)  # a folder in its place: renaming onto it is refused, as a full disk would be
    store = ImageStore(samples, 48, cache="disk", cache_dir=folder, warn=warnings.append)
    assert store.cache_kind == "none" and len(warnings) == 1
    np.testing.assert_array_equal(store.get(1), ImageStore(samples, 48).get(1))
    assert not list(folder.glob("*.part"))


def test_what_a_killed_maker_left_goes_with_the_next(make_samples: MakeSamples, tmp_path: Path) -> None:
    samples, folder = make_samples(3), tmp_path / "cache"
    folder.mkdir()
    key = ImageStore(samples, 48).content_key()
    (folder / f"{key}abc.part").write_bytes(b"half")
    (folder / "another.part").write_bytes(b"of another pack")
    ImageStore(samples, 48, cache="disk", cache_dir=folder)
    assert {path.name for path in folder.iterdir()} == {"another.part", f"{key}.lock", f"{key}.pack"}


def test_no_samples_are_no_problem(tmp_path: Path) -> None:
    for kind in ("none", "ram", "disk"):
        assert len(ImageStore([], 48, cache=kind, cache_dir=tmp_path)) == 0


def test_a_full_disk_is_a_named_error(tmp_path: Path) -> None:
    """The kernel's file size limit stands in for a full disk; it needs a process of its own."""
    program = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from yolocore.data.cache import pack_on_disk
from yolocore.errors import DiskFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
shapes = [(64, 64)] * 3
path = Path(sys.argv[1])
try:
    pack_on_disk(
        shapes, lambda i: np.ones((64, 64, 3), np.uint8), path, num_threads=1, progress=lambda d, t: None
    )
except DiskFullError:
    print(sorted(p.suffix for p in path.parent.iterdir()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.pack")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == "['.lock']"
