"""What a picture is on the data side: HWC uint8, three channels, BGR as OpenCV reads it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]

FILL = 114  # the grey that YOLOv5 pads with


def as_image(array: npt.NDArray[Any]) -> ImageArray:
    """Narrow an array that OpenCV returned to the one type it can have here."""
    assert array.dtype == np.uint8, array.dtype
    return cast(ImageArray, array)
