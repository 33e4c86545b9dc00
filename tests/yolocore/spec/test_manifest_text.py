"""The canonical text: the same bytes as ever, written and read in pieces and in little memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolocore.errors import DatasetError
from yolocore.spec.dataset import SPLITS, Manifest, ManifestImage
from yolocore.spec.manifest_text import ManifestText, outlines
from yolocore.spec.outline import Outline

THIRD = 1 / 3
TRIANGLE = [(0, 0), (0.5, 0), (1, THIRD)]


def image(name: str, split: str, rows: list[Any], **more: Any) -> ManifestImage:
    fields = {"sha256": f"{len(name):064x}", "bytes": 10, "width": 40, "height": 30}
    return ManifestImage.model_validate({"split": split, "name": name, "rows": rows, **fields, **more})


# Hashes are names that jobs remember: these must never change.
GOLDEN = {
    "328b6d3a500066be2e0a3d8773f70956de99a8acef6fb3b372a1a1bfd551a1e1": (
        ["x", "y"],
        [
            image("b.jpg", "val", [(1, 0.5, 0.5, 0.1, 0.2)]),
            image("a.jpg", "train", [(0, THIRD, 2 / 3, 1e-7, 5e-324), (1, 0, 0, 0, 0)]),
        ],
    ),
    "a230d41d887c3bd1edfc322d3b4471d0d4a312c231729916ffda379a71189845": (
        ["x", "y"],
        [
            image("a.jpg", "train", [(0, 0.5, 0.5, 1, 1)], polygons=[TRIANGLE]),
            image(
                "m.jpg", "train", [(0, 0.5, 0.5, 1, 1), (1, 0.1, 0.2, 0.3, 0.4)], polygons=[TRIANGLE, None]
            ),
            image("n.jpg", "val", [(0, 0.1, 0.1, 0.1, 0.1)], polygons=[None]),
        ],
    ),
    "4d3fa3241e26607ef413cb36aadf6e911c80141e85d95cb9280c05a34f426a07": (
        ['q"\\\n\x7f\u2028', "\u7ec6\u80de \U0001f408"],
        [image('d/\u0001 "\u00e9\U0001f408.jpg', "test", [])],
    ),
    "ae5065f1973b561cd100a6bc1c2760980d1aa74097c5e19582d42250385ae583": (["one"], []),
}


@pytest.mark.parametrize("known", GOLDEN)
def test_hashes_stay_what_they_were(known: str) -> None:
    names, images = GOLDEN[known]
    manifest = Manifest.build(names, images)
    assert manifest.manifest_hash() == known
    assert Manifest.read(io.BytesIO(manifest.canonical_json())) == manifest


def at_once(manifest: Manifest) -> bytes:
    """Return the canonical JSON the short way, which takes as much memory as there is."""
    data = manifest.model_dump(mode="json")
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


fractions = st.floats(0, 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(texts, min_size=1, max_size=4))
    row = st.tuples(st.integers(0, len(names) - 1), *[fractions] * 4)
    outline = st.none() | st.lists(st.tuples(fractions, fractions), min_size=3, max_size=5)
    images = []
    for split, name in draw(st.sets(st.tuples(st.sampled_from(SPLITS), texts), max_size=4)):
        rows = draw(st.lists(row, max_size=4))
        polygons = draw(st.none() | st.lists(outline, min_size=len(rows), max_size=len(rows)))
        images.append(image(name, split, rows, polygons=polygons))
    return Manifest.build(names, images)


@given(manifests(), st.integers(1, 40))
def test_written_and_read_in_pieces_is_the_same(manifest: Manifest, size: int) -> None:
    text = manifest.canonical_json()
    assert text == at_once(manifest)
    assert Manifest.read(Dripping(text, size)) == Manifest.parse(text) == manifest
    read = ManifestText(Dripping(text, size))
    images = list(read.images())
    assert {**read.rest, "images": images} == json.loads(text)
    assert [[None if line is None else [*map(tuple, line)] for line in outlines(one)] for one in images] == [
        [None if line is None else list(line) for line in one.polygons or [None] * len(one.rows)]
        for one in manifest.images
    ]


class Dripping:
    """Bytes that come at most `size` at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._file = io.BytesIO(content)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._size))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"images":',
        '{"images":[',
        '{"images":[1],"names":["x"]}',
        '{"images":[{"a":1}',
        '{"images":[{}{}],"names":["x"]}',
        '{"images":[],"images":[],"names":["x"]}',
        '{"images":[]}',
        '{"images":[],"names":["x"],"v":1}}',
        '{"images":[],"names":["x"]',
        '{"images":[' + '{"a":' * 100_000,
    ],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(DatasetError):
        Manifest.read(Dripping(text.encode(), 7))
    with pytest.raises(DatasetError):
        Manifest.read(io.BytesIO(b"\xff" + text.encode()))


def test_any_order_of_keys_and_blanks_can_be_parsed() -> None:
    manifest = Manifest.build(["x"], [image("a", "train", [(0, 0.5, 0.5, 1, 1)], polygons=[TRIANGLE])])
    assert Manifest.parse(json.dumps(manifest.model_dump(mode="json"), indent=1)) == manifest


def test_memory_does_not_grow_with_the_objects() -> None:
    """80,000 points: 9 MB as tuples and 3 MB as JSON, 1.3 MB as kept, and written in the room of a block."""
    points = np.random.default_rng(0).random((40, 20, 100, 2)).tolist()
    rows = [(0, 0.5, 0.5, 0.5, 0.5)] * 20
    images = [image(f"{n:03}", "train", rows, polygons=lines) for n, lines in enumerate(points)]
    del points
    manifest = Manifest.build(["x"], images)
    text = manifest.canonical_json()
    tracemalloc.start()
    try:
        manifest.manifest_hash()
        assert tracemalloc.get_traced_memory()[1] < 4e6
        tracemalloc.reset_peak()
        read = Manifest.read(io.BytesIO(text))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == manifest
    assert (kept < 2.5e6, peak - kept < 5e6) == (True, True), (kept, peak)


def test_an_outline_is_a_sequence_of_points() -> None:
    outline = Outline(TRIANGLE)
    assert len(outline) == 3
    assert outline == TRIANGLE == list(outline)
    assert outline == [list(point) for point in TRIANGLE]
    assert outline != TRIANGLE[:2]
    assert outline != "x"
    assert (outline[1], outline[-1], outline[1:]) == ((0.5, 0.0), (1.0, THIRD), TRIANGLE[1:])
    assert repr(outline) == "Outline([(0.0, 0.0), (0.5, 0.0), (1.0, 0.3333333333333333)])"
    with pytest.raises(IndexError):
        outline[3]
    assert np.array(outline, dtype=np.float32).tolist() == np.array(TRIANGLE, dtype=np.float32).tolist()


@pytest.mark.parametrize(
    "points", [TRIANGLE[:2], [(0, 0), (0, 2), (1, 1)], [(0, 0, 0)] * 3, [(0, float("nan"))] * 3, "abc"]
)
def test_outlines_are_bounded(points: Any) -> None:
    with pytest.raises(ValueError, match="polygons"):
        image("a", "train", [(0, 0.5, 0.5, 1, 1)], polygons=[points])
