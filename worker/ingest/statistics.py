"""Counts what a dataset holds and what that means for training, as plain numbers for a page to draw.

A pure function of the manifest and the image size; it reads no picture and knows no archive.
"""

from __future__ import annotations

import statistics as stats
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolocore.spec.dataset import SPLITS, Manifest, ManifestImage

Floats = npt.NDArray[np.float64]

# The anchors of the P5 models (w, h in pixels) by level P3, P4, P5; from this ratio on they do not match.
ANCHORS_PX = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
ANCHOR_RATIO = 4.0
# COCO's bounds between small, medium and large, as the side of a square.
SMALL_PX, LARGE_PX = 32.0, 96.0
_SIZE_EDGES_PX = (0, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_ASPECT_EDGES = (0, 0.125, 0.25, 0.5, 0.8, 1.25, 2, 4, 8)
_PER_IMAGE_FROM = (0, 1, 2, 3, 4, 5, 6, 11, 21, 51, 101)
_HEAT_CELLS = 16
_SIDE_BINS = 20
_MAX_IMAGE_SIZES = 20


def statistics(manifest: Manifest, imgsz: int = 640) -> dict[str, Any]:
    """Return counts, box sizes, anchor fit and where boxes lie, with boxes scaled to image size `imgsz` (px).

    Lists of `counts` go with `edges`: bin i holds edges[i] <= value < edges[i + 1], the last one has no end.
    """
    rows = _rows(manifest.images)
    sizes = _sizes_px(manifest.images, imgsz)
    per_image = [len(image.rows) for image in manifest.images]
    return {
        "v": 1,
        "imgsz": imgsz,
        "num_images": len(manifest.images),
        "num_boxes": len(rows),
        "splits": {split: _split(manifest.images_of(split)) for split in SPLITS},
        "classes": _classes(manifest),
        "split_classes": {split: _class_counts(manifest, split) for split in SPLITS},
        "image_width_px": _spread(image.width for image in manifest.images),
        "image_height_px": _spread(image.height for image in manifest.images),
        "image_sizes": _image_sizes(manifest.images),
        "box_width": _sides(rows[:, 3]),
        "box_height": _sides(rows[:, 4]),
        "boxes_per_image": {
            "edges": list(_PER_IMAGE_FROM),
            "counts": _counts(np.array(per_image, np.float64), _PER_IMAGE_FROM),
            "mean": sum(per_image) / len(per_image) if per_image else None,
            "max": max(per_image, default=None),
        },
        "box_sizes_px": _box_sizes(sizes),
        "box_aspects": {
            "edges": list(_ASPECT_EDGES),
            "counts": _counts(sizes[:, 0] / np.maximum(sizes[:, 1], 1e-9), _ASPECT_EDGES),
        },
        "anchors": anchor_fit(_sizes_px(manifest.images_of("train"), imgsz)),
        "heat_map": _heat_map(rows),
    }


def anchor_fit(sizes_px: Floats) -> dict[str, Any]:
    """Return how the default anchors fit boxes of `sizes_px` (n, 2: w, h).

    `recall` is the share of boxes whose best anchor has max(w/a, a/w) below the ratio on both sides (YOLOv5's
    best possible recall); `levels` the share whose best anchor is at P3, P4, P5. None without boxes.
    """
    anchors = np.array(ANCHORS_PX, np.float64).reshape(-1, 2)
    found: dict[str, Any] = {"px": ANCHORS_PX, "ratio": ANCHOR_RATIO, "recall": None, "levels": None}
    if not len(sizes_px):
        return found
    best = np.full(len(sizes_px), np.inf)
    level = np.zeros(len(sizes_px), np.int64)
    with np.errstate(divide="ignore"):
        for index, anchor in enumerate(anchors):
            worst = np.maximum(sizes_px / anchor, anchor / sizes_px).max(axis=1)
            level[worst < best] = index // len(ANCHORS_PX[0])
            best = np.minimum(best, worst)
    found["recall"] = float((best < ANCHOR_RATIO).mean())
    found["levels"] = [float((level == number).mean()) for number in range(len(ANCHORS_PX))]
    return found


def _rows(images: Sequence[ManifestImage]) -> Floats:
    return np.array([row for image in images for row in image.rows], np.float64).reshape(-1, 5)


def _sizes_px(images: Sequence[ManifestImage], imgsz: int) -> Floats:
    """Return (n, 2) widths and heights of boxes in pixels of the letterboxed picture."""
    rows = _rows(images)
    pictures = np.array([(image.width, image.height) for image in images], np.float64).reshape(-1, 2)
    scaled = pictures * (imgsz / pictures.max(axis=1, initial=1.0, keepdims=True))
    sizes: Floats = rows[:, 3:5] * np.repeat(scaled, [len(image.rows) for image in images], axis=0)
    return sizes


def _split(images: list[ManifestImage]) -> dict[str, int]:
    return {
        "images": len(images),
        "backgrounds": sum(not image.rows for image in images),
        "boxes": sum(len(image.rows) for image in images),
    }


def _class_counts(manifest: Manifest, split: str | None) -> dict[str, list[int]]:
    """Return boxes, and pictures with at least one, of each class; of all splits for None."""
    boxes: Counter[int] = Counter()
    pictures: Counter[int] = Counter()
    for image in manifest.images:
        if split in (None, image.split):
            boxes.update(row[0] for row in image.rows)
            pictures.update({row[0] for row in image.rows})
    numbers = range(len(manifest.names))
    return {
        "boxes": [boxes[number] for number in numbers],
        "images": [pictures[number] for number in numbers],
    }


def _classes(manifest: Manifest) -> list[dict[str, Any]]:
    counts = _class_counts(manifest, None)
    return [
        {"name": name, "boxes": boxes, "images": pictures}
        for name, boxes, pictures in zip(manifest.names, counts["boxes"], counts["images"], strict=True)
    ]


def _spread(values: Iterable[int]) -> dict[str, float] | None:
    found = list(values)
    return {"min": min(found), "median": stats.median(found), "max": max(found)} if found else None


def _image_sizes(images: Sequence[ManifestImage]) -> dict[str, Any]:
    sizes = Counter((image.width, image.height) for image in images)
    common = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_MAX_IMAGE_SIZES]
    return {
        "num_distinct": len(sizes),
        "most": [{"width": width, "height": height, "images": count} for (width, height), count in common],
    }


def _sides(fractions: Floats) -> list[int]:
    """Count fractions of the picture's side in equal bins from 0 to 1."""
    bins = np.minimum((fractions * _SIDE_BINS).astype(np.int64), _SIDE_BINS - 1)
    return [int(count) for count in np.bincount(bins, minlength=_SIDE_BINS)]


def _counts(values: Floats, edges: Sequence[float]) -> list[int]:
    bins = np.searchsorted(np.array(edges, np.float64), values, side="right") - 1
    return [int(count) for count in np.bincount(np.maximum(bins, 0), minlength=len(edges))]


def _box_sizes(sizes_px: Floats) -> dict[str, Any]:
    side = np.sqrt(sizes_px[:, 0] * sizes_px[:, 1])
    total = len(side)
    small, large = int((side < SMALL_PX).sum()), int((side >= LARGE_PX).sum())
    shares = (small, total - small - large, large)
    return {
        "edges": list(_SIZE_EDGES_PX),
        "counts": _counts(side, _SIZE_EDGES_PX),
        "median_width": float(np.median(sizes_px[:, 0])) if total else None,
        "median_height": float(np.median(sizes_px[:, 1])) if total else None,
        **{
            name: count / total if total else None
            for name, count in zip(("small", "medium", "large"), shares, strict=True)
        },
    }


def _heat_map(rows: Floats) -> list[list[int]]:
    """Count box centres on a coarse grid, first index down, second right."""
    places = np.minimum((rows[:, 1:3] * _HEAT_CELLS).astype(np.int64), _HEAT_CELLS - 1)
    counts = np.bincount(places[:, 1] * _HEAT_CELLS + places[:, 0], minlength=_HEAT_CELLS**2)
    return [[int(count) for count in line] for line in counts.reshape(_HEAT_CELLS, _HEAT_CELLS)]
