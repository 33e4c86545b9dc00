"""Makes one HTML file of what was understood of a dataset, to keep, print or send.

It needs no script and refers to nothing outside itself. All text of the upload is escaped here or in the
charts; it computes nothing that the statistics do not hold.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from worker.ingest import names as entry_names
from worker.ingest.charts import bars, heat_map, histogram
from worker.ingest.page_style import STYLE
from worker.ingest.thumbnails import PALETTE_BGR
from yolocore.spec.dataset import SPLITS, ManifestImage

MAX_PICTURES = 60
_MAX_CLASSES = 40
_MAX_PROBLEMS = 300
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SEVERITIES = ("error", "warning", "info")
Problem = dict[str, Any]


@dataclass(frozen=True)
class PageContents:
    """What the page shows; without statistics, as for an invalid dataset, it shows the problems alone.

    `thumbnail` gives a JPEG by position in `images`.
    """

    title: str
    result: dict[str, Any]
    problems: Sequence[Problem]
    statistics: dict[str, Any] | None = None
    images: Sequence[ManifestImage] = ()
    thumbnail: Callable[[int], bytes | None] | None = None


def make_page(contents: PageContents) -> str:
    """Return the whole HTML document."""
    parts = [_head(contents), _summary(contents.problems), *_body(contents), _list(contents.problems)]
    title = escape(contents.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - dataset report</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _head(contents: PageContents) -> str:
    result = contents.result
    numbers: list[tuple[str, str]] = []
    if "num_images" in result:
        numbers += [("pictures", f"{result['num_images']:,}"), ("boxes", f"{result['num_boxes']:,}")]
        numbers += [("classes", f"{result['num_classes']:,}")]
        numbers += [(split, f"{result['splits'][split]:,}") for split in SPLITS]
    numbers += [("errors", f"{result['errors']:,}"), ("warnings", f"{result['warnings']:,}")]
    tiles = "".join(f"<div><b>{value}</b>{escape(name)}</div>" for name, value in numbers)
    status = escape(result["status"])
    return (
        f'<header><h1>{escape(contents.title)} <span class="chip {status}">{status}</span></h1>'
        f'<div class="tiles">{tiles}</div></header>'
    )


def _summary(problems: Sequence[Problem]) -> str:
    """Return a table of one line a code: errors first, then the most frequent."""
    totals: dict[tuple[str, str], int] = {}
    example: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        key = (problem["severity"], problem["code"])
        totals[key] = totals.get(key, 0) + problem["count"]
        example.setdefault(key, problem)
    if not totals:
        return "<section><h2>Problems</h2><p>None found.</p></section>"
    order = sorted(totals, key=lambda key: (_SEVERITIES.index(key[0]), -totals[key], key[1]))
    rows = "".join(
        f'<tr><td><span class="chip {escape(key[0])}">{escape(key[0])}</span></td>'
        f'<td class="num">{totals[key]:,}</td><td><code>{escape(key[1])}</code></td>'
        f"<td>{escape(example[key]['message'])}</td><td>{escape(example[key]['fix'] or '')}</td></tr>"
        for key in order
    )
    head = (
        '<tr><th>severity</th><th class="num">times</th><th>code</th><th>for example</th><th>what to do</th>'
    )
    return f"<section><h2>Problems</h2><table>{head}</tr>{rows}</table></section>"


def _list(problems: Sequence[Problem]) -> str:
    """Return the problems one by one, as the report lists them."""
    if not problems:
        return ""
    rows = "".join(
        f'<tr><td><span class="chip {escape(p["severity"])}">{escape(p["severity"])}</span></td>'
        f"<td><code>{escape(p['code'])}</code></td><td>{_place(p)}</td><td>{escape(p['message'])}"
        f"{_more(p)}</td><td>{escape(p['value'] or '')}</td></tr>"
        for p in problems[:_MAX_PROBLEMS]
    )
    rest = len(problems) - _MAX_PROBLEMS
    more = f"<p>{rest:,} more are in report.json.</p>" if rest > 0 else ""
    head = "<tr><th>severity</th><th>code</th><th>file</th><th>problem</th><th>value</th></tr>"
    return f"<section><h2>One by one</h2><table>{head}{rows}</table>{more}</section>"


def _place(problem: Problem) -> str:
    line = f":{problem['line']}" if problem["line"] else ""
    return escape(f"{problem['file'] or ''}{line}")


def _more(problem: Problem) -> str:
    return f" <i>(and {problem['count'] - 1:,} more)</i>" if problem["count"] > 1 else ""


def _body(contents: PageContents) -> Iterator[str]:
    found = contents.statistics
    if found is None:
        return
    yield "<section><h2>What it holds</h2><div class='charts'>"
    yield from _charts(found)
    yield "</div></section>"
    yield _pictures(contents)


def _charts(found: dict[str, Any]) -> Iterator[str]:
    counts = [found["split_classes"][split]["boxes"] for split in SPLITS]
    rows = [
        (entry["name"], [split[number] for split in counts]) for number, entry in enumerate(found["classes"])
    ]
    rows.sort(key=lambda row: -sum(row[1]))
    hidden = len(rows) - _MAX_CLASSES
    note = f"The {hidden:,} rarest are not shown." if hidden > 0 else ""
    legend = "".join(f'<span><i class="s{n}"></i>{split}</span>' for n, split in enumerate(SPLITS))
    chart = bars(rows[:_MAX_CLASSES], SPLITS, "boxes by class and split")
    yield _figure("Boxes by class", chart, f'<span class="legend">{legend}</span>{note}')
    yield _sizes(found)
    heat = heat_map(found["heat_map"], "where the centres of boxes lie")
    yield _figure("Where boxes lie", heat, "Centres of boxes, on the picture; the stronger, the more.")
    per = found["boxes_per_image"]
    labels = _ranges(per["edges"], whole=True)
    mean = f"{per['mean']:.1f} on average, {per['max']:,} at most." if per["mean"] is not None else ""
    yield _figure("Boxes on a picture", histogram(labels, per["counts"], "pictures by number of boxes"), mean)
    aspects = found["box_aspects"]
    chart = histogram(_ranges(aspects["edges"]), aspects["counts"], "boxes by aspect")
    yield _figure("Shape of boxes", chart, "Width over height in pixels, from the number below each bar on.")
    yield _image_sizes(found)


def _sizes(found: dict[str, Any]) -> str:
    sizes = found["box_sizes_px"]
    kinds = ["s1" if edge < 32 else "s0" if edge < 96 else "s2" for edge in sizes["edges"]]
    chart = histogram([str(edge) for edge in sizes["edges"]], sizes["counts"], "boxes by size", kinds)
    notes = [f"Side of a square as large, from so many pixels on, at image size {found['imgsz']}."]
    if sizes["small"] is not None:
        notes.append(
            f'<span class="legend"><span><i class="s1"></i>small {sizes["small"]:.0%}</span>'
            f'<span><i class="s0"></i>medium {sizes["medium"]:.0%}</span>'
            f'<span><i class="s2"></i>large {sizes["large"]:.0%}</span></span>'
        )
    if found["anchors"]["recall"] is not None:
        notes.append(f"The default anchors can match {found['anchors']['recall']:.1%} of the training boxes.")
    return _figure("Size of boxes", chart, " ".join(notes))


def _image_sizes(found: dict[str, Any]) -> str:
    sizes = found["image_sizes"]
    rows = [(f"{size['width']} x {size['height']}", [size["images"]]) for size in sizes["most"][:12]]
    many = f"{sizes['num_distinct']:,} sizes, the most frequent first." if sizes["num_distinct"] > 1 else ""
    text = f"In pixels, turned upright. {many}"
    return _figure("Size of pictures", bars(rows, ("pictures",), "pictures by size"), text)


def _ranges(edges: Sequence[float], *, whole: bool = False) -> list[str]:
    labels: list[str] = []
    for at, edge in enumerate(edges):
        if at + 1 == len(edges):
            labels.append(f"{edge:g}+")
        elif whole:
            last = int(edges[at + 1]) - 1
            labels.append(f"{edge:g}" if last == edge else f"{edge:g}-{last}")
        else:
            labels.append(f"{edge:g}")
    return labels


def _figure(title: str, chart: str, caption: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{chart}<figcaption>{caption}</figcaption></figure>"


def _pictures(contents: PageContents) -> str:
    if contents.thumbnail is None:
        return ""
    problems = _problems_by_position(contents)
    cards: list[str] = []
    for position in chosen(len(contents.images), _each_kind_in_turn(problems)):
        jpeg = contents.thumbnail(position)
        if jpeg is not None:
            cards.append(_card(contents.images[position], jpeg, problems.get(position, [])))
    if not cards:
        return ""
    found = contents.statistics or {"classes": []}
    colours = "".join(
        f'<span><i style="background:rgb({red},{green},{blue})"></i>'
        f"{escape(', '.join(_of_colour(found['classes'], number)))}</span>"
        for number, (blue, green, red) in enumerate(PALETTE_BGR[: len(found["classes"])])
    )
    return (
        f'<section><h2>Pictures</h2><p class="legend">{colours}</p>'
        f'<div class="pictures">{"".join(cards)}</div>'
        f"<p>{len(cards):,} of {len(contents.images):,}: those with problems, then a spread.</p></section>"
    )


def _of_colour(classes: Sequence[dict[str, Any]], number: int) -> list[str]:
    found = [entry["name"] for entry in classes[number :: len(PALETTE_BGR)]]
    return found[:3] + ["..."] if len(found) > 3 else found


def _card(image: ManifestImage, jpeg: bytes, codes: Sequence[str]) -> str:
    data = base64.b64encode(jpeg).decode()
    chips = "".join(f"<code>{escape(code)}</code> " for code in sorted(set(codes)))
    return (
        f'<figure><div><img alt="" src="data:image/jpeg;base64,{data}"></div>'
        f"<figcaption>{escape(image.name)}<br>{image.split}, {image.width} x {image.height}, "
        f"{len(image.rows)} boxes {chips}</figcaption></figure>"
    )


def chosen(count: int, first: Sequence[int], limit: int = MAX_PICTURES) -> list[int]:
    """Return up to `limit` positions below `count`: those of `first`, but at most half where there are
    others, then an even spread of the rest."""
    head = list(first)[: max(limit // 2, limit - count + len(first))]
    taken = set(head)
    rest = [position for position in range(count) if position not in taken]
    room = min(limit - len(head), len(rest))
    return head[:limit] + [rest[at * len(rest) // room] for at in range(max(0, room))]


def _each_kind_in_turn(problems: dict[int, list[str]]) -> list[int]:
    """Return the positions so that each worst code comes up early, however often another is found."""
    turns: dict[str, int] = {}
    order: list[tuple[int, int]] = []
    for position, codes in problems.items():
        turns[codes[0]] = turns.get(codes[0], 0) + 1
        order.append((turns[codes[0]], position))
    return [position for _, position in sorted(order, key=lambda item: item[0])]


def _problems_by_position(contents: PageContents) -> dict[int, list[str]]:
    """Return codes by position of the picture they name, itself or by its label file, worst first."""
    places: dict[str, int] = {}
    for position, image in enumerate(contents.images):
        places.setdefault(image.name, position)
        places.setdefault(entry_names.label_path(image.name), position)
    found: dict[int, list[str]] = {}
    for problem in contents.problems:
        file = problem["file"] or ""
        # Names in the manifest are those below the dataset's folder, names in the report the archive's.
        while file and file not in places:
            file = file.partition("/")[2]
        if file:
            found.setdefault(places[file], []).append(problem["code"])
    return found
