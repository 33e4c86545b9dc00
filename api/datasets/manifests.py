"""What can be told of manifests: pages of their images, and the difference between two.

Works on the manifest's JSON as it is: a large one is read in a fraction of the time its models would take,
and was checked when it was made. Outlines are not kept, for there may be millions of points. Pure functions;
opens no file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.domain.errors import BadCursor
from api.errors import UnprocessableError
from yolocore.spec.manifest_text import ByteSource, ManifestText

MAX_SHOWN = 100
_CURSOR = re.compile(r"i(\d{1,9})")
Image = Mapping[str, Any]
Key = tuple[str, int]


def read_listing(source: ByteSource) -> dict[str, Any]:
    """Read a manifest without its outlines; raises ValueError where it is none."""
    text = ManifestText(source)
    images = [{key: value for key, value in image.items() if key != "polygons"} for image in text.images()]
    return {**text.rest, "images": images}


def class_number(names: Sequence[str], wanted: str) -> int:
    """Return the number of a class by its name, or by the number itself; raises UnprocessableError."""
    if wanted in names:
        return names.index(wanted)
    if wanted.isascii() and wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    place = {"pointer": "class", "message": "no such class", "value": wanted[:200]}
    raise UnprocessableError("CLASS_UNKNOWN", f"the dataset has no class {wanted[:80]!r}", errors=[place])


def images_page(
    manifest: Mapping[str, Any], *, limit: int, cursor: str | None, split: str | None, class_: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return some images with their position, size in pixels and boxes, and the cursor of the next ones.

    `split` and `class_` (name or number) leave out others. Boxes are `class x y w h`, normalised. Raises
    BadCursor, UnprocessableError for a class there is not.
    """
    start = _position(cursor)
    number = None if class_ is None else class_number(manifest["names"], class_)
    items: list[dict[str, Any]] = []
    images = manifest["images"]
    for position in range(start, len(images)):
        image = images[position]
        if split is not None and image["split"] != split:
            continue
        if number is not None and all(row[0] != number for row in image["rows"]):
            continue
        if len(items) == limit:
            return items, f"i{position}"
        items.append(_shown(position, image))
    return items, None


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what is to be done to `before` to have `after`: counts, and the first images of each kind.

    Images are the same by content; boxes are compared by class name, so that other numbers are no change.
    """
    old, new = _by_content(before), _by_content(after)
    both = [key for key in new if key in old]
    return {
        "images_added": _told([{**_named(new[key])} for key in new if key not in old]),
        "images_removed": _told([{**_named(old[key])} for key in old if key not in new]),
        "images_moved": _told(
            [
                {**_named(new[key]), "from": old[key]["split"], "to": new[key]["split"]}
                for key in both
                if old[key]["split"] != new[key]["split"]
            ]
        ),
        "boxes_changed": _told(list(_changed_boxes(before, after, old, new, both))),
        "classes": _classes(before["names"], after["names"]),
    }


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadCursor("this service gave no such cursor for images")
    return int(match[1])


def _shown(position: int, image: Image) -> dict[str, Any]:
    same = ("name", "split", "width", "height", "sha256")
    return {
        "n": position,
        **{key: image[key] for key in same},
        "size_bytes": image["bytes"],
        "boxes": image["rows"],
    }


def _by_content(manifest: Mapping[str, Any]) -> dict[Key, Image]:
    """Return the images by their content, and which of several copies each is."""
    seen: Counter[str] = Counter()
    found: dict[Key, Image] = {}
    for image in manifest["images"]:
        found[(image["sha256"], seen[image["sha256"]])] = image
        seen[image["sha256"]] += 1
    return found


def _changed_boxes(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    old: Mapping[Key, Image],
    new: Mapping[Key, Image],
    both: Sequence[Key],
) -> Iterator[dict[str, Any]]:
    for key in both:
        was, now = _boxes(before["names"], old[key]), _boxes(after["names"], new[key])
        if was != now:
            added, removed = (now - was).total(), (was - now).total()
            yield {**_named(new[key]), "boxes_added": added, "boxes_removed": removed}


def _boxes(names: Sequence[str], image: Image) -> Counter[tuple[Any, ...]]:
    return Counter((names[row[0]], *row[1:]) for row in image["rows"])


def _classes(before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
    both = [name for name in after if name in before]
    renumbered = [name for name in both if before.index(name) != after.index(name)]
    return {
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "renumbered": renumbered,
    }


def _named(image: Image) -> dict[str, Any]:
    return {"name": image["name"], "split": image["split"], "sha256": image["sha256"]}


def _told(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"count": len(items), "first": items[:MAX_SHOWN]}
