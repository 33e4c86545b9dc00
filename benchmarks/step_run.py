"""Times the parts of a training step: `step_run DATA_YAML STEPS`, one line of JSON at its end.

The loop of the trainer with a clock between its lines; batches are made by the same thread, so that each
part's processor time is its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import Batch
from yolocore.data.dataset import TrainSamples
from yolocore.data.images import ImageStore
from yolocore.data.loader import TrainLoader
from yolocore.loss.detection import DetectionLoss, scale_gains, to_tensors
from yolocore.model.build import build_network
from yolocore.model.layers import join_norms
from yolocore.model.network import Network
from yolocore.ops.assign import assign_targets
from yolocore.spec.config import TrainConfig
from yolocore.spec.zoo import zoo_text
from yolocore.train.ema import Ema
from yolocore.train.inputs import Data, plan_run, read_folder
from yolocore.train.numerics import numerics
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision

_IMGSZ, _BATCH = 320, 16
_NUM_UNSETTLED = 3
_CPU = torch.device("cpu")


class Parts:
    """Processor seconds of each part of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._last = time.process_time()

    def begin(self) -> None:
        """Start the clock of the next part."""
        self._last = time.process_time()

    def end(self, name: str) -> None:
        """Book the time since the last call under a name."""
        now = time.process_time()
        self.seconds[name].append(now - self._last)
        self._last = now


def make_loader(data: Data, network: Network, config: TrainConfig) -> TrainLoader:
    """Return a loader of augmented, matched batches that are made when asked for."""
    anchors = network.head.anchors.detach().float().numpy()
    strides = [int(stride) for stride in network.strides]
    anchor_t = float(np.float32(config.hyp.anchor_t))

    def match(batch: Batch) -> Batch:
        height, width = batch.images.shape[2:]
        shapes = [(height // stride, width // stride) for stride in strides]
        return replace(batch, matches=assign_targets(batch.targets.numpy(), anchors, shapes, anchor_t))

    augment = AugmentConfig(
        **{name: getattr(config.hyp, name) for name in AugmentConfig.__dataclass_fields__}
    )
    samples = TrainSamples(data.train, ImageStore(data.train, _IMGSZ, cache="ram"), _IMGSZ, augment, seed=0)
    return TrainLoader(samples, _BATCH, seed=0, num_threads=0, finish_batch=match)


def make_loss(network: Network, config: TrainConfig, num_classes: int) -> DetectionLoss:
    """Return the loss of a run with these hyperparameters."""
    hyp, strides = config.hyp, [int(stride) for stride in network.strides]
    gains = scale_gains(hyp.box, hyp.obj, hyp.cls, len(strides), num_classes, _IMGSZ)
    return DetectionLoss(
        num_classes=num_classes, strides=strides, box=gains.box, obj=gains.obj, cls=gains.cls
    )


def endless(loader: TrainLoader) -> Iterator[Batch]:
    """Yield batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def time_steps(data: Data, num_steps: int) -> dict[str, list[float]]:
    """Train some steps and return the seconds of their parts, without the first steps."""
    config = TrainConfig(imgsz=_IMGSZ, batch=_BATCH)
    plan = plan_run(zoo_text("yolov5n"), name="yolov5n.yaml", num_classes=len(data.names), imgsz=_IMGSZ)
    network = build_network(plan, seed=0).to(memory_format=torch.channels_last).train()
    join_norms(network)
    loss, ema, precision = make_loss(network, config, len(data.names)), Ema(network), Precision("fp32", _CPU)
    optimizer = build_optimizer(network, name="SGD", lr=0.01, momentum=0.937, weight_decay=0.0005)
    parameters = list(network.parameters())
    batches = endless(make_loader(data, network, config))
    parts = Parts()
    for _ in range(num_steps + _NUM_UNSETTLED):
        parts.begin()
        batch = next(batches)
        parts.end("data")
        images = batch.images.float() / 255
        maps = network(images)
        parts.end("forward")
        assert batch.matches is not None
        total, _items = loss(maps, to_tensors(batch.matches, _CPU, non_blocking=True))
        parts.end("loss")
        precision.backward(total)
        parts.end("backward")
        precision.step(optimizer, parameters, config.clip_norm)
        optimizer.zero_grad()
        ema.update()
        parts.end("optimizer, clipping, average")
    return {name: seconds[_NUM_UNSETTLED:] for name, seconds in parts.seconds.items()}


def main(data_yaml: Path, num_steps: int) -> None:
    """Time the steps and print them."""
    data = read_folder(data_yaml, single_cls=False, warn=lambda code, message: None)
    with numerics(1, _CPU):
        parts = time_steps(data, num_steps)
    print(json.dumps({"batch": _BATCH, "parts": parts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
