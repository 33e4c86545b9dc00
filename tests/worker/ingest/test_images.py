"""What is found in a picture's bytes, whatever the format, and what is remarked of harmless oddities."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from worker.ingest.images import ImageFacts, check_all
from worker.ingest.limits import Limits
from worker.ingest.shrink import shrunk

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")


def photo(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a picture with some content."""
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture's file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def checked(content: bytes, tmp_path: Path, limits: Limits | None = None) -> ImageFacts:
    """Check one file."""
    (tmp_path / "file").write_bytes(content)
    return check_all({"it": tmp_path / "file"}, limits or Limits())["it"]


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_pictures_of_every_format_are_taken(kind: str, tmp_path: Path) -> None:
    facts = checked(saved(photo(), kind), tmp_path)
    assert (facts.problem, facts.width, facts.height, facts.format) == (None, 64, 48, kind)
    assert facts.remarks == () and facts.note is None and len(facts.grey) == 72


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_damaged_tail_is_found_in_every_format(kind: str, share: float, tmp_path: Path) -> None:
    content = saved(photo((320, 240)), kind)
    facts = checked(content[: int(len(content) * share)], tmp_path)
    assert facts.problem is not None and facts.problem[0] in ("IMAGE_DAMAGED", "IMAGE_UNREADABLE")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "IMAGE_EMPTY"),
        (b"not a picture at all", "IMAGE_UNREADABLE"),
        (b"<html><script>1</script></html>", "IMAGE_UNREADABLE"),
        (saved(photo((9, 40)), "PNG"), "IMAGE_TOO_SMALL"),
    ],
)
def test_what_is_no_usable_picture_says_why(content: bytes, code: str, tmp_path: Path) -> None:
    problem = checked(content, tmp_path).problem
    assert problem is not None and problem[0] == code


def test_a_picture_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 1 << 20
    problem = checked(bomb, tmp_path).problem
    assert problem is not None and problem[0] in ("IMAGE_TOO_LARGE", "IMAGE_UNREADABLE")
    small = checked(saved(photo(), "PNG"), tmp_path, Limits(max_image_pixels=64 * 48 - 1)).problem
    assert small is not None and small[0] == "IMAGE_TOO_LARGE"


def sixteen_bits(suffix: str) -> bytes:
    """Return a colour picture with 16 bits a channel."""
    return cv2.imencode(suffix, np.asarray(photo()).astype(np.uint16) * 257)[1].tobytes()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (saved(photo().convert("CMYK"), "JPEG"), "IMAGE_CMYK"),
        (sixteen_bits(".png"), "IMAGE_16_BIT"),
        (sixteen_bits(".tiff"), "IMAGE_16_BIT"),
        (saved(Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "PNG"), "IMAGE_16_BIT"),
    ],
)
def test_what_is_converted_is_remarked(content: bytes, code: str, tmp_path: Path) -> None:
    facts = checked(content, tmp_path)
    assert facts.problem is None and [remark[0] for remark in facts.remarks] == [code]


def test_sixteen_bits_are_scaled_not_wrapped(tmp_path: Path) -> None:
    grey = checked(saved(Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "PNG"), tmp_path).grey
    assert set(grey) == {40_000 >> 8}


def test_a_turned_picture_is_upright_and_remarked(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = checked(saved(photo(), "JPEG", exif=exif), tmp_path)
    assert (facts.width, facts.height) == (48, 64)
    assert [remark[0] for remark in facts.remarks] == ["IMAGE_ROTATED"]


def test_an_animation_is_noted(tmp_path: Path) -> None:
    frames = saved(photo(), "GIF", save_all=True, append_images=[photo().rotate(90)])
    note = checked(frames, tmp_path).note
    assert note is not None and note[0] == "IMAGE_FIRST_FRAME"


class Kept(list[bytes]):
    """Keeps small copies in memory."""

    def put(self, content: bytes) -> tuple[int, int]:
        """Keep one; its place is its number."""
        self.append(content)
        return len(self) - 1, len(content)


def test_one_small_copy_a_picture_whatever_its_shape(tmp_path: Path) -> None:
    sizes = [(640, 480), (4000, 12), (12, 3000), (257, 256), (30, 20), (1999, 1301)]
    paths = {}
    for size in sizes:
        paths[str(size)] = tmp_path / f"{size[0]}x{size[1]}"
        paths[str(size)].write_bytes(saved(photo(size), "PNG"))
    kept = Kept()
    facts = check_all(paths, Limits(), kept)
    for width, height in sizes:
        place = facts[str((width, height))].thumbnail
        assert place is not None
        with Image.open(io.BytesIO(kept[place[0]])) as small:
            assert max(small.size) == min(256, max(width, height)) and min(small.size) >= 1
            assert small.size[0] * height == pytest.approx(small.size[1] * width, abs=max(width, height))


def test_shrinking_keeps_the_mean() -> None:
    pixels = np.asarray(photo((1001, 701)), np.uint8)
    assert shrunk(pixels).mean(axis=(0, 1)) == pytest.approx(pixels.mean(axis=(0, 1)), abs=2)


def test_many_pictures_come_back_under_their_keys(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved(photo((20, 10)), "PNG"))
    (tmp_path / "b").write_bytes(saved(photo((10, 20)), "PNG"))
    paths = {f"{number:05}": tmp_path / "ab"[number % 2] for number in range(1200)}
    facts = check_all(paths, Limits())
    assert list(facts) == list(paths)
    assert {(key, fact.width) for key, fact in facts.items()} == {
        (f"{number:05}", (20, 10)[number % 2]) for number in range(1200)
    }
