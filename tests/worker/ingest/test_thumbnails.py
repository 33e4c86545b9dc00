"""Small pictures with their boxes: where lines are drawn, in which colour, and what file they end in."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.ingest.images import ImageFacts
from worker.ingest.shrink import encoded
from worker.ingest.thumbnails import PALETTE_BGR, Spool, Thumbnails, draw
from yolocore.spec.dataset import Manifest, ManifestImage

WHITE = np.full((100, 200, 3), 255, np.uint8)


def pixels(jpeg: bytes) -> np.ndarray:
    """Return RGB values of a JPEG."""
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


@pytest.mark.parametrize("cls", [0, 3, len(PALETTE_BGR), 10_000])
def test_a_box_is_a_thin_frame_in_the_colour_of_its_class(cls: int) -> None:
    drawn = pixels(draw(encoded(WHITE), [(cls, 0.5, 0.5, 0.5, 0.5)]))
    changed = np.abs(drawn - 255).sum(axis=2) > 150
    assert changed[25, 50:150].mean() > 0.9 and changed[25:75, 50].mean() > 0.9
    assert not changed[35:65, 60:140].any() and not changed[:15].any()
    wanted = np.array(PALETTE_BGR[cls % len(PALETTE_BGR)][::-1])
    line, white = drawn[25, 60:140].mean(axis=0), np.array([255, 255, 255])
    assert np.abs(line - wanted).sum() < np.abs(line - white).sum()


def test_boxes_to_the_very_edge_stay_inside() -> None:
    drawn = pixels(draw(encoded(WHITE), [(4, 0.5, 0.5, 1.0, 1.0)]))
    changed = np.abs(drawn - 255).sum(axis=2) > 100
    assert changed[0].mean() > 0.9 and changed[-1].mean() > 0.9 and changed[:, -1].mean() > 0.9


def test_a_background_is_left_as_it_is() -> None:
    jpeg = encoded(WHITE)
    assert draw(jpeg, []) is jpeg


def test_the_spool_gives_back_what_it_took_and_leaves_nothing(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        places = [spool.put(bytes([number]) * number) for number in range(1, 50)]
        assert [spool.get(place) for place in places] == [bytes([n]) * n for n in range(1, 50)]
    assert list(tmp_path.iterdir()) == []


def written(folder: Path) -> bytes:
    """Write three pictures, of which one has no small copy, and return the file."""
    images = [
        ManifestImage(split="train", name=name, sha256=name * 64, bytes=1, width=200, height=100, rows=[])
        for name in "abc"
    ]
    with Spool(folder / "spool") as spool:
        facts = {
            "a" * 64: ImageFacts(200, 100, thumbnail=spool.put(encoded(WHITE))),
            "b" * 64: ImageFacts(200, 100),
            "c" * 64: ImageFacts(200, 100, thumbnail=spool.put(encoded(WHITE // 2))),
        }
        Thumbnails(Manifest.build(["x"], images), facts, spool).write(folder / "thumbnails.zip")
    assert [path.name for path in folder.iterdir()] == ["thumbnails.zip"]
    return (folder / "thumbnails.zip").read_bytes()


def test_members_are_named_by_position_and_equal_datasets_give_equal_files(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    content = written(one)
    assert content == written(two)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["000000.jpg", "000002.jpg"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert pixels(archive.read("000002.jpg")).mean() == pytest.approx(127, abs=2)
