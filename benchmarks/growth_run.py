"""Measures how costs grow with work: `growth_run PART quick|full FOLDER`, one line of JSON at its end.

PART is `images`, `boxes`, `classes`, `size` or `model`. One thread, processor seconds, the fastest of a few
turns (of the losses the median).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.growing import described, fastest, grow
from benchmarks.ours import CPU, ours
from benchmarks.parts_run import (
    both_losses,
    made_detections,
    made_maps,
    made_network,
    made_targets,
    time_loss,
)
from yolocore.data.files import fingerprint, manifest_samples
from yolocore.eval.validate import Judge
from yolocore.loss.detection import to_tensors
from yolocore.ops.assign import assign_targets
from yolocore.ops.nms import non_max_suppression
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.dataset import Manifest
from yolocore.spec.manifest_text import canonical_chunks
from yolocore.spec.plan import plan_architecture
from yolocore.spec.zoo import zoo_text
from yolocore.train.inputs import Data
from yolocore.train.numerics import numerics

Curves = list[dict[str, Any]]
_BOXES, _SIDE, _BATCH = 5, 64, 16
_CANDIDATES = 3000


def images(folder: Path, *, quick: bool) -> Curves:
    """Datasets of more and more pictures: reading the manifest, its hash, the first batch, one epoch's draws.

    All pictures are the same small file, so that what grows is the bookkeeping.
    """
    found = grow([10, 50] if quick else [1000, 10_000, 100_000], lambda work: _dataset(folder, int(work)))
    what = f"{_BOXES} boxes each"
    return [
        described(found["read"], "manifest read and checked", "images", "s", what),
        described(found["hash"], "hash of what is learned", "images", "s", what),
        described(
            found["start"], "loader built and first batch", "images", "s", f"{_SIDE} pixels, batch {_BATCH}"
        ),
        described(found["order"], "start of one more epoch", "images", "s", "until its first batch is there"),
    ]


def _dataset(folder: Path, count: int) -> dict[str, float]:
    text, root = _manifest(folder, count)
    kept: dict[str, Any] = {}

    def read() -> None:
        kept["samples"] = manifest_samples(Manifest.parse(text), root)

    times = 3 if count <= 10_000 else 1
    seconds = {"read": fastest(read, times)}
    samples = kept["samples"]
    seconds["hash"] = fastest(lambda: fingerprint(samples), times)
    train = [sample for sample in samples if sample.split == "train"]
    data = Data(["thing"], train, train[:1])

    def start() -> None:
        kept["loader"] = ours(data, imgsz=_SIDE, batch=_BATCH, model="yolov5n").wiring.train_loader(None)
        next(iter(kept["loader"].epoch(0)))

    seconds["start"] = fastest(start, times)
    seconds["order"] = fastest(lambda: next(iter(kept["loader"].epoch(1))), times)
    return seconds


def _manifest(folder: Path, count: int) -> tuple[bytes, Path]:
    """Return the canonical text of a made manifest, and the folder of its pictures."""
    done, encoded = cv2.imencode(".png", np.full((_SIDE, _SIDE, 3), 114, np.uint8))
    assert done
    content = encoded.tobytes()
    name = hashlib.sha256(content).hexdigest()
    path = folder / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    rows = np.random.default_rng(0).uniform(0.2, 0.7, (count, _BOXES, 4)).round(6).tolist()
    entries = (
        {
            "split": "train",
            "name": f"{number:09}.png",
            "sha256": name,
            "bytes": len(content),
            "width": _SIDE,
            "height": _SIDE,
            "rows": [[0, *row] for row in rows[number]],
        }
        for number in range(count)
    )
    return b"".join(canonical_chunks(entries, {"names": ["thing"], "v": 1})), folder


def boxes(folder: Path, *, quick: bool) -> Curves:
    """More and more boxes an image: the loss forward and backward, ours and the textbook's, and matching."""
    batch, imgsz = (2, 64) if quick else (16, 320)

    def cost(work: float) -> Mapping[str, float]:
        seconds = time_loss(1 if quick else 3, batch, boxes=int(work), imgsz=imgsz)["seconds"]
        return {name: 1000 * median(values) for name, values in seconds.items()}

    found = grow([1, 5] if quick else [1, 10, 50, 100, 200, 500], cost)
    what = f"{imgsz} pixels, batch {batch}, 3 classes"
    unit = "boxes an image"
    return [
        described(found["ours"], "loss, forward and backward", unit, "ms", what),
        described(found["matching"], "matching in the loader", unit, "ms", what),
        described(found["textbook"], "the textbook's loss with matching", unit, "ms", what),
    ]


def classes(folder: Path, *, quick: bool) -> Curves:
    """More and more classes: the loss, suppression of one picture, and judging."""
    imgsz, pictures = (64, 10) if quick else (320, 200)
    found = grow([1, 10] if quick else [1, 20, 80, 300, 1000], lambda n: _classes(int(n), imgsz, pictures))
    judged = f"{pictures} pictures, 100 detections each"
    return [
        described(
            found["loss"],
            "loss, forward and backward",
            "classes",
            "ms",
            f"{imgsz} pixels, batch 2, 14 boxes an image",
        ),
        described(
            found["nms"], "suppression, one picture", "classes", "ms", f"25,200 places, {_CANDIDATES} pass"
        ),
        described(found["judge"], "matching and AP", "classes", "ms", judged),
    ]


def _classes(num_classes: int, imgsz: int, pictures: int) -> dict[str, float]:
    network = made_network(imgsz, num_classes=num_classes)
    loss, _ = both_losses(network, imgsz, num_classes)
    targets, maps = made_targets(2, 14, num_classes), made_maps(network, 2, imgsz, num_classes)
    shapes = [(int(imgsz // stride),) * 2 for stride in network.strides.tolist()]
    matches = assign_targets(targets.numpy(), network.head.anchors.numpy(), shapes, 4.0)
    decoded = _decoded(num_classes)
    detections = made_detections(pictures, 100, num_classes)

    def judge() -> None:
        judging = Judge(num_classes)
        for rows, true in detections:
            judging.add(rows, true)
        judging.metrics()

    work: dict[str, Callable[[], Any]] = {
        "loss": lambda: loss(maps, to_tensors(matches))[0].backward(),
        "nms": lambda: non_max_suppression(decoded, conf_thres=0.001, iou_thres=0.6, multi_label=True),
        "judge": judge,
    }
    return {name: 1000 * fastest(one) for name, one in work.items()}


def _decoded(num_classes: int) -> torch.Tensor:
    """Return one picture's rows (1, 25200, 5 + classes) of which a fixed number pass, one class each."""
    rng = np.random.default_rng(0)
    rows = np.full((25_200, 5 + num_classes), 1e-5, np.float32)
    places = rng.choice(len(rows), _CANDIDATES, replace=False)
    rows[:, :2], rows[:, 2:4] = rng.uniform(50, 590, (len(rows), 2)), rng.uniform(20, 90, (len(rows), 2))
    rows[places, 4] = rng.uniform(0.01, 0.9, _CANDIDATES)
    rows[places, 5 + rng.integers(0, num_classes, _CANDIDATES)] = 0.9
    return torch.from_numpy(rows)[None]


def size(folder: Path, *, quick: bool) -> Curves:
    """Larger and larger images: one forward and backward of yolov5n."""
    found = grow(
        [64, 96] if quick else [160, 320, 640, 1280],
        lambda work: {"step": 1000 * _step("yolov5n", int(work), 2 if quick else 3)},
    )
    how = "yolov5n, batch 1; twice the side is four times the pixels"
    return [described(found["step"], "network, forward and backward", "pixels a side", "ms", how)]


def model(folder: Path, *, quick: bool) -> Curves:
    """Larger and larger models: one forward and backward, by the operations of a forward pass."""
    sizes = "ns" if quick else "nsmlx"
    names = {round(made_gflops(f"yolov5{letter}"), 1): f"yolov5{letter}" for letter in sizes}
    side = 64 if quick else 160
    found = grow(sorted(names), lambda work: {"step": 1000 * _step(names[work], side, 2)})
    how = f"{', '.join(f'yolov5{letter}' for letter in sizes)} at {side} pixels, batch 1"
    unit = "GFLOPs at 640 pixels"
    return [described(found["step"], "network, forward and backward", unit, "ms", how)]


def made_gflops(name: str) -> float:
    """Return the operations of a public model at 640 pixels, in 10^9."""
    plan = plan_architecture(parse_architecture(zoo_text(name)), num_classes=80)
    return plan.flops / 1e9


def _step(name: str, side: int, times: int) -> float:
    network = made_network(side, name, num_classes=80)
    images = torch.rand(1, 3, side, side).to(memory_format=torch.channels_last)

    def step() -> None:
        torch.stack([raw.mean() for raw in network(images)]).sum().backward()
        network.zero_grad()

    step()
    return fastest(step, times)


PARTS = {"images": images, "boxes": boxes, "classes": classes, "size": size, "model": model}


def main(arguments: list[str]) -> None:
    """Measure one part and print."""
    part, mode, folder = arguments
    with numerics(1, CPU):
        found = PARTS[part](Path(folder), quick=mode == "quick")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
