"""Draws counts as inline SVG: bars, histograms, a heat map, coloured by the page's style sheet.

Every function takes numbers and plain text and returns markup in which all text is escaped. It knows nothing
of datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH = 480
_ROW = 22
_LABEL = 150
_NUMBER = 70


def bars(rows: Sequence[tuple[str, Sequence[int]]], series: Sequence[str], title: str) -> str:
    """Return horizontal bars, each stacked from one count a series; classes `s0`, `s1`, ... colour them."""
    longest = max((sum(counts) for _, counts in rows), default=0) or 1
    room = _WIDTH - _LABEL - _NUMBER
    parts: list[str] = []
    for index, (label, counts) in enumerate(rows):
        top, left = index * _ROW, float(_LABEL)
        parts.append(
            f'<text x="{_LABEL - 8}" y="{top + 15}" text-anchor="end">{escape(_short(label, 20))}'
            f"<title>{escape(label)}</title></text>"
        )
        for number, count in enumerate(counts):
            width = count / longest * room
            if count:
                hint = escape(f"{label}, {series[number]}: {count}")
                parts.append(
                    f'<rect class="s{number}" x="{left:.1f}" y="{top + 3}" width="{max(width, 1):.1f}" '
                    f'height="{_ROW - 7}"><title>{hint}</title></rect>'
                )
            left += width
        parts.append(f'<text class="n" x="{left + 6:.1f}" y="{top + 15}">{sum(counts):,}</text>')
    return _svg(parts, _WIDTH, max(1, len(rows)) * _ROW, title)


def histogram(labels: Sequence[str], counts: Sequence[int], title: str, classes: Sequence[str] = ()) -> str:
    """Return vertical bars with a label each; `classes` may name the CSS class of each bar."""
    height, base = 170, 140
    highest = max(counts, default=0) or 1
    step = _WIDTH / max(1, len(counts))
    parts = [f'<line class="axis" x1="0" y1="{base}" x2="{_WIDTH}" y2="{base}"/>']
    for index, (label, count) in enumerate(zip(labels, counts, strict=True)):
        tall = count / highest * (base - 18)
        middle = (index + 0.5) * step
        kind = escape(classes[index]) if classes else "s0"
        if count:
            parts.append(
                f'<rect class="{kind}" x="{index * step + 2:.1f}" y="{base - max(tall, 1):.1f}" '
                f'width="{step - 4:.1f}" height="{max(tall, 1):.1f}">'
                f"<title>{escape(label)}: {count:,}</title></rect>"
                f'<text class="n" x="{middle:.1f}" y="{base - tall - 4:.1f}" text-anchor="middle">'
                f"{_compact(count)}</text>"
            )
        parts.append(f'<text x="{middle:.1f}" y="{base + 16}" text-anchor="middle">{escape(label)}</text>')
    return _svg(parts, _WIDTH, height, title)


def heat_map(grid: Sequence[Sequence[int]], title: str) -> str:
    """Return a square of cells, the stronger the more; first index down, second right."""
    cell = 16
    highest = max((count for line in grid for count in line), default=0) or 1
    parts = [
        f'<rect class="heat" x="{x * cell}" y="{y * cell}" width="{cell}" height="{cell}" '
        f'fill-opacity="{(count / highest) ** 0.5:.3f}"><title>{count:,}</title></rect>'
        for y, line in enumerate(grid)
        for x, count in enumerate(line)
        if count
    ]
    side = len(grid) * cell
    parts.append(f'<rect class="frame" x="0.5" y="0.5" width="{side - 1}" height="{side - 1}"/>')
    return _svg(parts, side, side, title)


def _svg(parts: list[str], width: int, height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _compact(count: int) -> str:
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
