"""Draws curves as an SVG picture without any library: for reports that are looked at where they lie.

It knows lists of numbers and their names, and nothing of jobs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 150, 28, 34
# Told apart by people with any common kind of colour vision (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_NUM_TICKS = 4


def draw_curves(title: str, curves: Mapping[str, Sequence[float | None]]) -> str:
    """Return an SVG with a line a curve over epochs 1, 2, ...; what is None or not finite is left out."""
    finite = {
        name: [value if value is not None and math.isfinite(value) else None for value in values]
        for name, values in curves.items()
    }
    everything = [value for values in finite.values() for value in values if value is not None]
    low, high = min([0.0, *everything]), max(everything, default=1.0)
    high = high if high > low else low + 1.0
    length = max((len(values) for values in finite.values()), default=0)

    def place(epoch: int, value: float) -> tuple[float, float]:
        across = epoch / max(1, length - 1)
        up = (value - low) / (high - low)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_text(_LEFT, 16, title, weight="bold"), *_axes(low, high, length)]
    for number, (name, values) in enumerate(finite.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [place(epoch, value) for epoch, value in enumerate(values) if value is not None]
        parts.append(_curve(points, colour))
        parts.append(_text(_WIDTH - _RIGHT + 12, _TOP + 14 + 16 * number, name, fill=colour))
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
    body = "\n".join(part for part in parts if part)
    return f'<svg {head} font-family="sans-serif" font-size="12">\n{_background()}\n{body}\n</svg>\n'


def _background() -> str:
    return f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'


def _curve(points: Sequence[tuple[float, float]], colour: str) -> str:
    if len(points) == 1:
        x, y = points[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>' if line else ""


def _axes(low: float, high: float, length: int) -> list[str]:
    parts = []
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in range(_NUM_TICKS + 1):
        y = bottom - tick / _NUM_TICKS * (bottom - _TOP)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#dddddd"/>')
        value = low + tick / _NUM_TICKS * (high - low)
        parts.append(_text(_LEFT - 6, y + 4, f"{value:.3g}", anchor="end"))
    for epoch in sorted({1, length}) if length else ():
        x = _LEFT if epoch == 1 else right
        parts.append(_text(x, bottom + 18, str(epoch), anchor="middle"))
    parts.append(_text((_LEFT + right) / 2, bottom + 18, "epoch", anchor="middle"))
    return parts


def _text(x: float, y: float, text: str, **attributes: str) -> str:
    renamed = {"anchor": "text-anchor", "weight": "font-weight"}
    more = "".join(f' {renamed.get(key, key)}="{value}"' for key, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'
