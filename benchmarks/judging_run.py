"""Times the judging of a validation set, ours and COCO's own program in turn: `judging_run PAIRS PICTURES`.

It needs the environment of `make bench-peer`, which has pycocotools. Processor seconds, one thread; one line
of JSON at its end. COCO's program gets the same detections, and is run as it comes, from arrays to its twelve
figures, and once more spared what ours does not do: four sizes of objects, three numbers of detections, and
the making of its index. It matches by score, ours by overlap as YOLOv5 does, so their figures differ where
several detections lie around an object.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.baselines.scoring import Floats
from benchmarks.ours import CPU
from benchmarks.parts_run import DETECTIONS, NUM_CLASSES, in_turn, made_detections, our_judging
from yolocore.train.numerics import numerics

Made = list[tuple[Floats, Floats]]


def labels_of(made: Made) -> dict[str, Any]:
    """Return the labels as COCO writes them; categories and pictures count from 1."""
    labels: list[dict[str, Any]] = []
    for picture, (_, true) in enumerate(made, start=1):
        for cls, x1, y1, x2, y2 in true.tolist():
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            labels.append({"id": len(labels) + 1, "image_id": picture, "category_id": int(cls) + 1, **box})
    return {
        "info": {},
        "images": [{"id": picture} for picture in range(1, len(made) + 1)],
        "categories": [{"id": number + 1, "name": str(number)} for number in range(NUM_CLASSES)],
        "annotations": labels,
    }


def evaluation_of(labels: dict[str, Any], made: Made) -> Any:
    """Return an evaluation that holds labels and detections."""
    found = []
    for picture, (rows, _) in enumerate(made, start=1):
        number, wh = np.full((len(rows), 1), picture), rows[:, 2:4] - rows[:, :2]
        found.append(np.concatenate((number, rows[:, :2], wh, rows[:, 4:5], rows[:, 5:6] + 1), 1))
    truth = COCO()
    truth.dataset = labels
    truth.createIndex()
    return COCOeval(truth, truth.loadRes(np.concatenate(found).astype(np.float64)), "bbox")


def judge_by_coco(labels: dict[str, Any], made: Made) -> None:
    """Judge as pycocotools does unless told otherwise."""
    evaluation = evaluation_of(labels, made)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()


def spared(evaluation: Any) -> Any:
    """Return an evaluation that is spared all sizes of objects but one, and fewer detections."""
    evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
    evaluation.params.maxDets = [DETECTIONS]
    return evaluation


def judge_spared(evaluation: Any) -> None:
    """Match and accumulate alone."""
    evaluation.evaluate()
    evaluation.accumulate()


def main(arguments: list[str]) -> None:
    """Time and print."""
    pairs, pictures = map(int, arguments)
    made = made_detections(pictures, DETECTIONS, NUM_CLASSES)
    labels = labels_of(made)
    with contextlib.redirect_stdout(io.StringIO()), numerics(1, CPU):
        evaluation = spared(evaluation_of(labels, made))
        ways = {
            "ours": lambda: our_judging(made),
            "coco": lambda: judge_by_coco(labels, made),
            "spared": lambda: judge_spared(evaluation),
        }
        seconds = in_turn(pairs, ways)
    print(json.dumps({"seconds": seconds, "pictures": pictures, "detections": DETECTIONS}))


if __name__ == "__main__":
    main(sys.argv[1:])
