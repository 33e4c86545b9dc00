"""Reads from the statistics what will go wrong in training, while it can still be mended.

It sees numbers only, never the pictures; its thresholds are rules of thumb and are written here once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from worker.ingest.report import Report, Severity

_RARE_SHARE = 0.01
_MAX_RATIO = 100
_MANY_SMALL = 0.5
_MIN_RECALL = 0.98
_FEW_IMAGES = 100
_MAX_NAMED = 5

Advice = tuple[Severity, str, str, str, str | None]
"""Severity, code, message, fix, value: the fields of a report's entry."""


def advise(found: dict[str, Any], report: Report) -> None:
    """Add what the statistics of a usable dataset suggest to the report, as warnings and infos."""
    for rule in _RULES:
        for severity, code, message, fix, value in rule(found):
            report.add(severity, code, message, fix=fix, value=value)


def _class_balance(found: dict[str, Any]) -> Iterator[Advice]:
    counts = found["split_classes"]["train"]["boxes"]
    names = [entry["name"] for entry in found["classes"]]
    present = {name: count for name, count in zip(names, counts, strict=True) if count}
    if len(present) < 2:
        return
    total = sum(present.values())
    rarest, commonest = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    ratio = present[commonest] / present[rarest]
    rare = [name for name, count in present.items() if count < _RARE_SHARE * total]
    fix = "add pictures of the rare classes, or merge or drop them on import"
    if ratio > _MAX_RATIO:
        text = f"{commonest!r} has {ratio:.0f} times as many training boxes as {rarest!r}"
        yield "warning", "CLASS_IMBALANCE", text, fix, rarest
    elif rare:
        text = f"{_named(rare)} under 1 % of the training boxes each"
        yield "info", "CLASS_RARE", text, fix, rare[0]


def _class_splits(found: dict[str, Any]) -> Iterator[Advice]:
    names = [entry["name"] for entry in found["classes"]]
    train, val = (found["split_classes"][split]["boxes"] for split in ("train", "val"))
    unused = [name for name, entry in zip(names, found["classes"], strict=True) if not entry["boxes"]]
    untrained = [name for name, a, b in zip(names, train, val, strict=True) if b and not a]
    unjudged = [name for name, a, b in zip(names, train, val, strict=True) if a and not b]
    if untrained:
        text = f"{_named(untrained)} boxes in val but none in train: nothing to learn from"
        yield "warning", "CLASS_NOT_IN_TRAIN", text, "split so that each class is in both", untrained[0]
    if unjudged:
        text = f"{_named(unjudged)} boxes in train but none in val: no accuracy can be told"
        yield "warning", "CLASS_NOT_IN_VAL", text, "split so that each class is in both", unjudged[0]
    if unused:
        yield "info", "CLASS_UNUSED", f"{_named(unused)} no boxes at all", "drop it on import", unused[0]


def _small_objects(found: dict[str, Any]) -> Iterator[Advice]:
    share, imgsz = found["box_sizes_px"]["small"], found["imgsz"]
    if share is None or share <= _MANY_SMALL:
        return
    text = f"{share:.0%} of the boxes are smaller than 32 x 32 pixels at image size {imgsz}"
    largest = max(found["image_width_px"]["max"], found["image_height_px"]["max"])
    if largest > imgsz:
        fix = f"train with a larger imgsz, for example {min(2 * imgsz, -(-int(largest) // 32) * 32)}"
    else:
        fix = "use pictures of a higher resolution: these are no larger than the image size"
    yield "info", "SMALL_OBJECTS", text, fix, f"{share:.3f}"


def _anchors(found: dict[str, Any]) -> Iterator[Advice]:
    recall = found["anchors"]["recall"]
    if recall is not None and recall < _MIN_RECALL:
        text = f"the default anchors can match only {recall:.1%} of the training boxes at this image size"
        yield "info", "ANCHORS_MISFIT", text, "leave autoanchor on: it finds better ones", f"{recall:.3f}"


def _few_images(found: dict[str, Any]) -> Iterator[Advice]:
    count = found["splits"]["train"]["images"]
    if count < _FEW_IMAGES:
        text = f"only {count} pictures to train on"
        yield "info", "FEW_IMAGES", text, "start from pretrained weights, and add pictures", str(count)


def _named(names: list[str]) -> str:
    """Return the first few names as the beginning of a sentence, with its verb."""
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMED])
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{shown}{more} {'has' if len(names) == 1 else 'have'}"


_RULES: tuple[Callable[[dict[str, Any]], Iterator[Advice]], ...] = (
    _class_splits,
    _class_balance,
    _small_objects,
    _anchors,
    _few_images,
)
