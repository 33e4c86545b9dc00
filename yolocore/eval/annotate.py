"""Boxes and names drawn into pictures, so that all pictures of a result look alike.

It must not know what the boxes are: labels, detections or targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Okabe and Ito's colours, told apart by colour-blind readers too; RGB.
PALETTE: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
)
FONT_SCALE = 0.38
CAPTION = (32, 32, 32)
_ORDINARY_PX = 640  # a side for which lines of one pixel and small letters are right


def annotate(image: Picture, rows: NDArray[Any], names: Sequence[str]) -> Picture:
    """Return a copy of a BGR picture with detections (n, 6) x1, y1, x2, y2, score, class, the best on top."""
    scale = max(max(image.shape[:2]) / _ORDINARY_PX, 1.0)
    drawn = np.ascontiguousarray(image[..., ::-1])
    for row in rows[::-1]:
        draw_box(drawn, row[:4], names, int(row[5]), note=f" {row[4]:.2f}", scale=scale)
    return np.ascontiguousarray(drawn[..., ::-1])


def draw_box(
    image: Picture,
    box_xyxy_px: Sequence[float] | NDArray[Any],
    names: Sequence[str],
    cls: int,
    *,
    note: str = "",
    scale: float = 1.0,
) -> None:
    """Draw a box with its name into an RGB picture, in the colour of its class."""
    colour = PALETTE[cls % len(PALETTE)]
    x1, y1, x2, y2 = (round(float(value)) for value in box_xyxy_px)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, max(round(2 * scale), 1))
    write(image, _name(names, cls) + note, (x1, y1), colour, scale=scale)


def write(
    image: Picture, text: str, place: tuple[int, int], background: Colour, *, scale: float = 1.0
) -> None:
    """Write on a filled strip whose lower left corner is `place`, black or white, whichever is told apart."""
    thickness, font = max(round(scale), 1), cv2.FONT_HERSHEY_SIMPLEX
    (width, height), _ = cv2.getTextSize(text, font, FONT_SCALE * scale, thickness)
    room = round(4 * scale)
    left = max(min(place[0], image.shape[1] - width - 2), 0)
    bottom = max(place[1], height + room)
    cv2.rectangle(image, (left, bottom - height - room), (left + width + 2, bottom), background, cv2.FILLED)
    ink = (0, 0, 0) if sum(background) > 330 else (255, 255, 255)
    origin = (left + 1, bottom - round(3 * scale))
    cv2.putText(image, text, origin, font, FONT_SCALE * scale, ink, thickness, cv2.LINE_AA)


def _name(names: Sequence[str], cls: int) -> str:
    """Return the name, or the number where the letters cannot be drawn."""
    return names[cls] if cls < len(names) and names[cls].isascii() else f"#{cls}"
