"""What the loss, the optimizer and the judging of detections cost beside the textbook's, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import PEER, Bench, ask
from benchmarks.stats import Figure, median, ratio_figure, targets

LOSS_FLOOR, LOSS_AIMS = targets(2.0, 2.5, 4)
OPTIMIZER_FLOOR, OPTIMIZER_AIMS = targets(3, 5, 8)
SCORING_AIMS = {
    "immature": targets(10, 15, 25),
    "half-trained": targets(4, 6, 10),
    "mature": targets(1.2, 2, 5),
}
COCO_FLOOR, COCO_AIMS = targets(50, 90)


def measure_loss(bench: Bench) -> list[Figure]:
    """Time the loss forward and backward, and the matching that our loader does for it."""
    found = ask(bench, "parts_run", "loss", 1 if bench.quick else 6, 2 if bench.quick else 16)
    seconds = found["seconds"]
    how = (
        f"{_against(seconds)}, forward and backward, 320 pixels, batch {found['batch']}, "
        f"{found['boxes']} boxes an image; {LOSS_AIMS}"
    )
    loss = ratio_figure("loss, textbook / ours", seconds["ours"], seconds["textbook"], LOSS_FLOOR, how)
    with_matching = [a + b for a, b in zip(seconds["ours"], seconds["matching"], strict=True)]
    said = f"with the {_ms(seconds['matching'])} of matching that our loader does, maybe in another thread"
    return [loss, ratio_figure("- matching counted too", with_matching, seconds["textbook"], None, said)]


def measure_optimizer(bench: Bench) -> list[Figure]:
    """Time clipping, SGD and average of yolov5n."""
    seconds = ask(bench, "parts_run", "optimizer", 1 if bench.quick else 12, 0)["seconds"]
    how = f"{_against(seconds)}, yolov5n; {OPTIMIZER_AIMS}"
    name = "SGD, average and clipping, textbook / ours"
    return [ratio_figure(name, seconds["ours"], seconds["textbook"], OPTIMIZER_FLOOR, how)]


def measure_scoring(bench: Bench) -> list[Figure]:
    """Time suppression, matching and AP for made predictions of three stages of training."""
    loads = ask(bench, "parts_run", "scoring", 1 if bench.quick else 5, 1 if bench.quick else 8)
    return [scoring_figure(name, found) for name, found in loads.items()]


def scoring_figure(name: str, found: Mapping[str, Any]) -> Figure:
    """Return the figure of one load."""
    seconds, pictures = found["seconds"], found["pictures"]
    bound, aims = SCORING_AIMS[name]
    each = {side: [value / pictures for value in values] for side, values in seconds.items()}
    how = (
        f"{_against(each)} an image; {found['candidates']:.0f} made candidates an image, "
        f"mAP50 {found['map50']:.2f}, nothing dropped on either side; {aims}"
    )
    title = f"NMS, matching and AP, {name}, textbook / ours"
    return ratio_figure(title, seconds["ours"], seconds["textbook"], bound, how)


def measure_judging(bench: Bench) -> list[Figure]:
    """Time the judging of a large validation set, beside COCO's own program where that is installed."""
    pictures = 100 if bench.quick else 5000
    if not (PEER / ".ready").exists():
        found = ask(bench, "parts_run", "judging", 1 if bench.quick else 3, pictures)
        return [judging_figure(found)]
    found = ask(bench, "judging_run", 1 if bench.quick else 2, pictures, python=PEER / "bin/python")
    return [judging_figure(found), *coco_figures(found)]


def judging_figure(found: Mapping[str, Any]) -> Figure:
    """Return what a set takes, in processor seconds."""
    seconds = median(found["seconds"]["ours"])
    how = f"processor time of ours for {found['detections']} made detections an image"
    title = f"scoring {found['pictures']:,} images, 80 classes"
    return Figure(title, seconds, f"{seconds:.2f} s", None, how)


def coco_figures(found: Mapping[str, Any]) -> list[Figure]:
    """Return how many times less ours takes than pycocotools, as it comes and spared what ours leaves out."""
    ours, coco, spared = (found["seconds"][name] for name in ("ours", "coco", "spared"))
    how = f"{median(ours):.2f} against {median(coco):.2f} s, from arrays to its twelve figures; {COCO_AIMS}"
    rest = f"against {median(spared):.2f} s, one size of objects, one number of detections, index made before"
    return [
        ratio_figure("- pycocotools / ours", ours, coco, COCO_FLOOR, how),
        ratio_figure("- the same, spared what ours does not do", ours, spared, None, rest),
    ]


def _against(seconds: Mapping[str, Sequence[float]]) -> str:
    return f"{_ms(seconds['ours'])} against {_ms(seconds['textbook'])}"


def _ms(seconds: Sequence[float]) -> str:
    return f"{1000 * median(seconds):.2f} ms"
