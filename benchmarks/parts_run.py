"""Times parts of training, ours and the textbook's in turn: `parts_run PART PAIRS SIZE`, one line of JSON.

PART is `scoring`, `judging`, `loss` or `optimizer`. One thread, processor seconds; SIZE is pictures or a
batch.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.loss import TextbookLoss
from benchmarks.baselines.optim import TextbookEma, textbook_sgd
from benchmarks.baselines.scoring import Floats, TextbookJudge, textbook_nms
from benchmarks.baselines.training import plain_twin
from benchmarks.loads import CLASSES, LABELS, LOADS, Load, made_pictures, num_candidates
from benchmarks.ours import CPU
from yolocore.eval.validate import Judge
from yolocore.loss.detection import DetectionLoss, scale_gains, to_tensors
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.ops.assign import assign_targets
from yolocore.ops.nms import non_max_suppression
from yolocore.spec.zoo import zoo_text
from yolocore.train.ema import Ema
from yolocore.train.inputs import plan_run
from yolocore.train.numerics import numerics
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision

Seconds = dict[str, list[float]]
IMGSZ = 320
DETECTIONS, NUM_CLASSES = 100, 80  # of an image, of a large validation set


def in_turn(pairs: int, ways: dict[str, Callable[[], Any]], times: int = 1) -> Seconds:
    """Call each way `times` times, turn by turn, once unmeasured; return the processor seconds of each."""
    seconds: Seconds = defaultdict(list)
    for turn in range(pairs + 1):
        for name, way in ways.items():
            began = time.process_time()
            for _ in range(times):
                way()
            if turn:
                seconds[name].append((time.process_time() - began) / times)
    return seconds


def our_scoring(decoded: Tensor, labels: list[Tensor]) -> Floats:
    """Suppress, match and judge pictures as validation does; return the AP."""
    judge = Judge(CLASSES)
    found = non_max_suppression(decoded, conf_thres=0.001, iou_thres=0.6, multi_label=True)
    for rows, true in zip(found, labels, strict=True):
        judge.add(rows.numpy(), true.numpy())
    return judge.metrics().ap


def textbook_scoring(decoded: Tensor, labels: list[Tensor]) -> Floats:
    """Do the same the textbook way."""
    judge = TextbookJudge()
    for rows, true in zip(textbook_nms(decoded), labels, strict=True):
        judge.add(rows, true)
    return judge.ap()


def time_scoring(pairs: int, pictures: int) -> dict[str, Any]:
    """Return seconds, candidates a picture and mAP50 for each load."""
    return {load.name: _time_load(load, pairs, pictures) for load in LOADS}


def _time_load(load: Load, pairs: int, pictures: int) -> dict[str, Any]:
    decoded, labels = made_pictures(load, pictures)
    seconds = in_turn(
        pairs,
        {"ours": lambda: our_scoring(decoded, labels), "textbook": lambda: textbook_scoring(decoded, labels)},
    )
    ap = our_scoring(decoded, labels)
    return {
        "seconds": seconds,
        "pictures": pictures,
        "candidates": num_candidates(decoded),
        "map50": float(ap[:, 0].mean()),
    }


def made_detections(pictures: int, each: int, num_classes: int) -> list[tuple[Floats, Floats]]:
    """Return rows (each, 6) of suppressed detections and the labels (14, 5) they lie around, by picture."""
    made = []
    for number in range(pictures):
        rng = np.random.default_rng((1, number))
        start = rng.uniform(0, 500, (LABELS, 2))
        boxes = np.concatenate((start, start + rng.uniform(20, 140, (LABELS, 2))), 1)
        cls = rng.integers(0, num_classes, LABELS)
        of = rng.integers(0, LABELS, each)
        said = np.where(rng.random(each) < 0.7, cls[of], rng.integers(0, num_classes, each))
        moved = boxes[of] + rng.normal(0, 8, (each, 4))
        rows = np.concatenate((moved, rng.random((each, 1)), said[:, None]), 1)
        made.append((rows.astype(np.float32), np.concatenate((cls[:, None], boxes), 1).astype(np.float32)))
    return made


def our_judging(made: list[tuple[Floats, Floats]]) -> Floats:
    """Match and judge made detections; return the AP (classes, thresholds)."""
    judge = Judge(NUM_CLASSES)
    for rows, true in made:
        judge.add(rows, true)
    return judge.metrics().ap


def time_judging(pairs: int, pictures: int) -> dict[str, Any]:
    """Return seconds of matching and judging made detections, ours alone."""
    made = made_detections(pictures, DETECTIONS, NUM_CLASSES)
    seconds = in_turn(pairs, {"ours": lambda: our_judging(made)})
    return {"seconds": seconds, "pictures": pictures, "detections": DETECTIONS}


def made_network(imgsz: int = IMGSZ, model: str = "yolov5n", num_classes: int = CLASSES) -> Network:
    """Return a network to train, channels-last."""
    plan = plan_run(zoo_text(model), name=f"{model}.yaml", num_classes=num_classes, imgsz=imgsz)
    return build_network(plan, seed=0).to(memory_format=torch.channels_last).train()


def made_targets(batch: int, boxes: int, num_classes: int = CLASSES) -> Tensor:
    """Return targets (batch * boxes, 6) with the sizes of cells on a photograph."""
    rng = np.random.default_rng(0)
    count = batch * boxes
    rows = np.concatenate(
        (
            np.repeat(np.arange(batch), boxes)[:, None],
            rng.integers(0, num_classes, (count, 1)),
            rng.uniform(0.1, 0.9, (count, 2)),
            rng.uniform(0.04, 0.3, (count, 2)),
        ),
        1,
    )
    return torch.from_numpy(rows).float()


def made_maps(network: Network, batch: int, imgsz: int, num_classes: int = CLASSES) -> list[Tensor]:
    """Return raw maps as the network lays them out, to be differentiated."""
    generator = torch.Generator().manual_seed(0)
    maps = []
    for stride in network.strides.tolist():
        cells = int(imgsz // stride)
        values = torch.randn((batch, cells, cells, 3, 5 + num_classes), generator=generator)
        maps.append(values.permute(0, 3, 1, 2, 4).requires_grad_())
    return maps


def both_losses(network: Network, imgsz: int, num_classes: int) -> tuple[DetectionLoss, TextbookLoss]:
    """Return our loss and the textbook's for a network, with default gains."""
    gains = scale_gains(0.05, 1.0, 0.5, 3, num_classes, imgsz)
    strides = network.strides.tolist()
    ours = DetectionLoss(
        num_classes=num_classes, strides=strides, box=gains.box, obj=gains.obj, cls=gains.cls
    )
    return ours, TextbookLoss(network.head.anchors, num_classes, *gains)


def time_loss(
    pairs: int, batch: int, boxes: int = 14, num_classes: int = CLASSES, imgsz: int = IMGSZ
) -> dict[str, Any]:
    """Return seconds of the loss forward and backward, and of the matching that our loader does."""
    network = made_network(imgsz, num_classes=num_classes)
    ours, textbook = both_losses(network, imgsz, num_classes)
    targets, anchors = made_targets(batch, boxes, num_classes), network.head.anchors.numpy()
    shapes = [(int(imgsz // stride),) * 2 for stride in network.strides.tolist()]
    theirs = [
        raw.detach().contiguous().requires_grad_() for raw in made_maps(network, batch, imgsz, num_classes)
    ]
    maps = made_maps(network, batch, imgsz, num_classes)
    matches = assign_targets(targets.numpy(), anchors, shapes, 4.0)
    seconds = in_turn(
        pairs,
        {
            "ours": lambda: ours(maps, to_tensors(matches))[0].backward(),
            "textbook": lambda: textbook(theirs, targets)[0].backward(),
            "matching": lambda: assign_targets(targets.numpy(), anchors, shapes, 4.0),
        },
        times=10,
    )
    return {"seconds": seconds, "batch": batch, "boxes": boxes}


def time_optimizer(pairs: int, model: str = "yolov5n") -> dict[str, Any]:
    """Return seconds of clipping, SGD and average for gradients that are there."""
    network = made_network(model=model)
    twin = plain_twin(network)
    ema, other = Ema(network), TextbookEma(twin)
    optimizer = build_optimizer(network, name="SGD", lr=0.01, momentum=0.937, weight_decay=0.0005)
    textbook = textbook_sgd(twin, 0.01, 0.937, 0.0005)
    for one in (network, twin):
        for parameter in one.parameters():
            parameter.grad = torch.full_like(parameter, 1e-4)
    precision, parameters = Precision("fp32", CPU), list(network.parameters())

    def ours_step() -> None:
        precision.step(optimizer, parameters, 10.0)
        ema.update()

    def textbook_step() -> None:
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 10.0)
        textbook.step()
        other.update(twin)

    return {"seconds": in_turn(pairs, {"ours": ours_step, "textbook": textbook_step}, times=10)}


def main(arguments: list[str]) -> None:
    """Time a part and print."""
    part, pairs, size = arguments[0], int(arguments[1]), int(arguments[2])
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "scoring": lambda: time_scoring(pairs, size),
        "judging": lambda: time_judging(pairs, size),
        "loss": lambda: time_loss(pairs, size),
        "optimizer": lambda: time_optimizer(pairs),
    }
    with numerics(1, CPU):
        found = ways[part]()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
