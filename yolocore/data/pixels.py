"""What a picture is on the data side: HWC uint8, three channels, BGR as OpenCV reads it.

It must not know files or names; bytes come in, pixels go out.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]

FILL = 114  # the grey that YOLOv5 pads with


def as_image(array: npt.NDArray[Any]) -> ImageArray:
    """Narrow an array that OpenCV returned to the one type it can have here."""
    assert array.dtype == np.uint8, array.dtype
    return cast(ImageArray, array)


def decode(data: bytes) -> ImageArray | None:
    """Decode a picture to BGR, HWC uint8, turned upright; None if OpenCV cannot.

    Any format becomes three 8-bit channels; of several frames or pages it is the first. Raises MemoryError.
    """
    if not data:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        return None
    if image is None or image.dtype != np.uint8:
        return None
    if image.ndim == 2:  # a grey PFM stays grey whatever is asked for
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return as_image(image)
