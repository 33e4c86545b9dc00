"""What the loss, the optimizer and the judging of detections cost beside the textbook's, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import Bench, ask
from benchmarks.stats import Figure, median, ratio_figure, targets

LOSS_FLOOR, LOSS_AIMS = targets(2.0, 2.5, 4)
OPTIMIZER_FLOOR, OPTIMIZER_AIMS = targets(3, 5, 8)
SCORING_AIMS = {
    "immature": targets(10, 15, 25),
    "half-trained": targets(4, 6, 10),
    "mature": targets(1.2, 2, 5),
}
COCO_FLOOR = "pycocotools is no dependency, so the ratio (at least 50x, goal 90x) is not measured"


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
    """Time the judging of a large validation set, our side alone."""
    found = ask(bench, "parts_run", "judging", 1 if bench.quick else 3, 100 if bench.quick else 5000)
    seconds = median(found["seconds"]["ours"])
    shown = f"{seconds:.2f} s"
    how = f"processor time of ours for {found['detections']} made detections an image; {COCO_FLOOR}"
    title = f"scoring {found['pictures']:,} images, 80 classes"
    return [Figure(title, seconds, shown, None, how)]


def _against(seconds: Mapping[str, Sequence[float]]) -> str:
    return f"{_ms(seconds['ours'])} against {_ms(seconds['textbook'])}"


def _ms(seconds: Sequence[float]) -> str:
    return f"{1000 * median(seconds):.2f} ms"
