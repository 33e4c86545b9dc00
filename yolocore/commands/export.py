"""`python -m yolocore export`: weights as ONNX or TorchScript, each file compared with its source.

It must not know how a file is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolocore.commands.common import add_weights, read_cfg
from yolocore.errors import ConfigError

if TYPE_CHECKING:
    from yolocore.detector import Detector
    from yolocore.weights.check import Floats

FORMATS = ("onnx", "torchscript")


def add_parser(commands: Any) -> None:
    """Add the command with its options."""
    parser = commands.add_parser("export", help="write weights for other programs")
    add_weights(parser, "what is written")
    parser.add_argument("--format", default="onnx", help="onnx, torchscript, or both with a comma")
    parser.add_argument("--batch", type=int, default=1, help="pictures the file takes at once (default 1)")
    parser.add_argument("--dynamic", action="store_true", help="any number of pictures of any fitting size")
    parser.add_argument("--opset", type=int, default=17, help="ONNX operator set (default 17)")
    parser.add_argument("--half", action="store_true", help="compute in half precision; in- and output stay")
    parser.add_argument("--nms", action="store_true", help="ONNX: suppression built in, detections come out")
    parser.add_argument("--conf", type=float, default=0.25, help="with --nms: lowest score (default 0.25)")
    parser.add_argument("--iou", type=float, default=0.45, help="with --nms: overlap of a repeat")
    parser.add_argument(
        "--max-det", type=int, default=300, help="with --nms: most boxes of a class and picture"
    )
    parser.add_argument("--agnostic", action="store_true", help="with --nms: classes suppress each other")
    parser.add_argument(
        "--image", type=Path, help="a picture to compare on, beside noise and made-up scenery"
    )
    parser.add_argument("--out", type=Path, help="folder of the files (default: that of the weights)")
    parser.add_argument("--threads", type=int, help="CPU threads of one operation")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write each format and tell how far it is from its source; return the exit code."""
    kinds = options.format.split(",")
    wrong = [kind for kind in kinds if kind not in FORMATS]
    if wrong:
        raise ConfigError(f"formats are {' and '.join(FORMATS)}", place="--format", value=wrong[0])
    if options.batch < 1:
        raise ConfigError("at least one picture", place="--batch", value=str(options.batch))

    import torch

    from yolocore.detector import load_detector
    from yolocore.model.deploy import Deployed
    from yolocore.train.numerics import numerics
    from yolocore.weights.export import SUFFIXES, Shape, export
    from yolocore.weights.onnx_nms import Suppression

    nms = Suppression(options.conf, options.iou, options.max_det, options.agnostic) if options.nms else None
    with numerics(options.threads, torch.device("cpu")):
        detector = load_detector(options.weights, imgsz=options.imgsz, cfg=read_cfg(options.cfg))
        pictures = [] if options.image is None else [(options.image.name, _input(options, detector))]
        folder = options.out or options.weights.parent
        folder.mkdir(parents=True, exist_ok=True)
        size_hw = (detector.imgsz, detector.imgsz)
        for kind in kinds:
            written = export(
                Deployed(detector.network, half=options.half),
                folder / f"{options.weights.stem}{SUFFIXES[kind]}",
                kind=kind,
                shape=Shape(options.batch, size_hw, dynamic=options.dynamic, stride=detector.stride),
                metadata=_metadata(detector),
                half=options.half,
                opset=options.opset,
                suppression=nms,
                pictures=pictures,
            )
            print(told(written.path, written.report))
    return 0


def told(path: Path, report: Mapping[str, Any]) -> str:
    """Return a line on a file and on the largest differences from its source."""
    rows = report["comparisons"]
    boxes = max(item["box_max_abs_px"] for item in rows)
    scores = max(item["score_max_abs"] for item in rows)
    return (
        f"{path}: {report['size_bytes'] / 1e6:.1f} MB; differs from its source by {boxes:.2g} px and "
        f"{scores:.2g} in scores at most, over {len(rows)} comparisons"
    )


def _input(options: argparse.Namespace, detector: Detector) -> Floats:
    from yolocore.predict import fitted, read_picture
    from yolocore.train.deliver import as_input

    pixels, _, _ = fitted(read_picture(options.image), detector.imgsz, detector.stride, square=True)
    return as_input(pixels, detector.imgsz, options.batch)


def _metadata(detector: Detector) -> dict[str, Any]:
    from yolocore.train.deliver import metadata

    head = detector.network.head
    anchors_px = (head.anchors * head.strides.view(-1, 1, 1)).tolist()
    return metadata(
        names=detector.names,
        stride=detector.stride,
        size_hw=(detector.imgsz, detector.imgsz),
        architecture=detector.plan.architecture.source,
        anchors_px=anchors_px,
        config=detector.config.model_dump(mode="json") if detector.is_own else {},
    )
