"""The best weights as an ONNX file beside them, so that a result can be run without this package.

A copy for the convenience of others: whatever goes wrong with it is told and costs the run nothing. It must
not know the loop or the configuration.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolocore.errors import CoreError
from yolocore.model.deploy import Deployed
from yolocore.model.network import Network
from yolocore.spec.events import ArtifactSaved
from yolocore.train.checkpoint import Tensors, load_into
from yolocore.train.islands import sink
from yolocore.train.outputs import RunFolder, halved
from yolocore.weights.check import Floats
from yolocore.weights.export import Shape, export

NAME = "best.onnx"


def export_onnx(
    output: RunFolder,
    *,
    network: Network,
    best: Tensors,
    stride: int,
    picture: tuple[str, NDArray[np.uint8]] | None,
    warn: Callable[[str, str], None],
) -> list[ArtifactSaved]:
    """Write best.onnx and its report and announce them; whatever prevents it is a warning.

    `network` gives the structure and is only copied, `best` are the weights before they are rounded as in
    best.pt, `picture` is a real one, HWC RGB, to compare on.
    """
    try:
        card = output.card
        judged = copy.deepcopy(network).cpu().eval()
        sink(judged)
        load_into(judged, halved(best), "best weights")
        shape = Shape(1, (card.imgsz, card.imgsz), stride=stride)
        described = metadata(
            names=card.names,
            stride=stride,
            size_hw=shape.size_hw,
            architecture=card.architecture_name,
            anchors_px=card.anchors_px,
            config=json.loads(card.config or "{}"),
        )
        pictures = [] if picture is None else [(picture[0], as_input(picture[1], card.imgsz))]
        written = export(
            Deployed(judged),
            output.artifacts / NAME,
            kind="onnx",
            shape=shape,
            metadata=described,
            pictures=pictures,
        )
    except (CoreError, OSError, MemoryError, RuntimeError) as error:  # torch runs out of memory as the last
        warn("ONNX_NOT_WRITTEN", f"there is no {NAME}: {error}")
        return []
    return [output.announce_file(written.path), output.announce_file(written.report_path)]


def metadata(
    *,
    names: Sequence[str],
    stride: int,
    size_hw: tuple[int, int],
    architecture: str,
    anchors_px: Sequence[Sequence[Sequence[float]]],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a file for other programs says about itself; `stride` and `imgsz` in pixels. Pure."""
    kept = ("epochs", "batch", "seed", "single_cls", "hyp", "val")
    return {
        "producer": "trainshed",
        "task": "detect",
        "names": {str(number): name for number, name in enumerate(names)},
        "stride": stride,
        "imgsz": list(size_hw),
        "architecture": architecture,
        "anchors_px": [[list(pair) for pair in level] for level in anchors_px],
        "trained_with": {key: config[key] for key in kept if key in config},
    }


def as_input(image: NDArray[np.uint8], side: int, batch: int = 1) -> Floats:
    """Return the upper left of a picture HWC RGB, or it on grey, as (batch, 3, side, side) from 0 to 1."""
    square = np.full((side, side, 3), 114, np.uint8)
    part = image[:side, :side]
    square[: part.shape[0], : part.shape[1]] = part
    pixels = square.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    result: Floats = np.repeat(pixels, batch, 0)
    return result
