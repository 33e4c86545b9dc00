"""`python -m yolocore val`: a table of the classes, metrics.json, curves and pictures of one split.

It must not know how anything is computed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolocore.commands.common import add_place, add_weights, read_cfg, result_folder, warn
from yolocore.errors import ConfigError
from yolocore.spec.dataset import SPLITS

BASE = Path("runs/val")
NUM_PICTURES = 16
COLUMNS = ("precision", "recall", "map50", "map50_95")


def add_parser(commands: Any) -> None:
    """Add the command with its options."""
    parser = commands.add_parser("val", help="validate weights on a split of a YOLO folder")
    add_weights(parser, "what is judged")
    parser.add_argument("--data", type=Path, required=True, help="data.yaml of a YOLO folder")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--batch", type=int, help="pictures of a batch (default: as in training)")
    parser.add_argument("--conf", type=float, help="lowest score that counts (default: as in training)")
    parser.add_argument("--iou", type=float, help="overlap above which a box is a repeat (the same)")
    parser.add_argument("--max-det", type=int, help="most detections of a picture (the same)")
    add_place(parser, BASE)
    parser.add_argument("--workers", type=int, default=1, help="loader threads")
    parser.add_argument("--save-txt", action="store_true", help="write the detections as label text")
    parser.add_argument("--save-conf", action="store_true", help="with --save-txt: scores in a sixth column")
    parser.add_argument(
        "--plots", action=argparse.BooleanOptionalAction, default=True, help="curves, confusion and pictures"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Validate and print; return the exit code."""
    if options.save_conf and not options.save_txt:
        raise ConfigError("scores are written with --save-txt only", place="--save-conf")

    from yolocore.train.export import draw_result, figures, written_detections
    from yolocore.train.files import publish
    from yolocore.val import Validation, ValRequest

    request = ValRequest(
        weights=options.weights,
        data_yaml=options.data,
        split=options.split,
        cfg=read_cfg(options.cfg),
        imgsz=options.imgsz,
        batch=options.batch,
        conf_thres=options.conf,
        iou_thres=options.iou,
        max_det=options.max_det,
        device=options.device,
        threads=options.threads,
        loader_threads=options.workers,
    )
    validation = Validation(request, warn=warn)
    with result_folder(options.out, BASE) as out:
        written = written_detections(
            out / "labels", validation.pictures, wanted=options.save_txt, with_score=options.save_conf
        )
        with written as take:
            result = validation.judge(num_samples=NUM_PICTURES if options.plots else 0, take=take)
        values = figures(result, validation.names)
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        publish(out / "metrics.json", text.encode(), durable=False)
        if options.plots:
            draw_result(result, validation.names, out)
        print(table(values))
        speed = result.num_images / max(result.seconds, 1e-9)
        print(f"{result.num_images} images in {result.seconds:.1f} s ({speed:.1f} a second)")
        print(f"done: {out}")
    return 0


def table(values: Mapping[str, Any]) -> str:
    """Return the figures of all and of each class with labels, a line each."""
    rows = [{"name": "all", **values}, *values["classes"]]
    width = max(len(str(row["name"])) for row in rows) + 2
    lines = [f"{'class':{width}}{'labels':>8}{'P':>9}{'R':>9}{'mAP50':>9}{'mAP50-95':>10}"]
    for row in rows:
        p, r, map50, map50_95 = (row[name] for name in COLUMNS)
        lines.append(f"{row['name']:{width}}{row['labels']:>8}{p:9.3f}{r:9.3f}{map50:9.3f}{map50_95:10.3f}")
    return "\n".join(lines)
