"""A run's parts as training builds them, for programs that time them; it must not know what is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.config import CacheName, TrainConfig
from yolocore.spec.events import EpochDone, TrainEvent
from yolocore.spec.zoo import zoo_text
from yolocore.train.checkpoint import Snapshot, Tensors
from yolocore.train.inputs import Data, plan_run, read_folder, val_stride
from yolocore.train.precision import Precision
from yolocore.train.request import RunSettings
from yolocore.train.trainer import Trainer
from yolocore.wiring import Wiring

CPU = torch.device("cpu")


class NoOutput:
    """Writes nothing."""

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Keep nothing."""

    def finished_epoch(self, rows: list[EpochDone], ema: Tensors) -> None:
        """Keep nothing."""


@dataclass(frozen=True)
class Ours:
    """A network in training mode, and what builds the other parts of its run."""

    network: Network
    wiring: Wiring

    def trainer(self, emit: Callable[[TrainEvent], None]) -> Trainer:
        """Return the loop over the run's loaders; it writes nothing and nobody wishes anything."""
        return self.wiring.trainer(
            self.network,
            loader=self.wiring.train_loader(None),
            evaluator=self.wiring.evaluator(),
            frozen=[],
            output=NoOutput(),
            emit=emit,
            poll=lambda: None,
        )


def read_data(data_yaml: Path) -> Data:
    """Read a YOLO folder and keep silent about its faults."""
    return read_folder(data_yaml, single_cls=False, warn=lambda code, message: None)


def ours(
    data: Data,
    *,
    imgsz: int,
    batch: int,
    model: str = "yolov5n",
    epochs: int = 100,
    cache: CacheName = "none",
    cache_dir: Path | None = None,
    loader_threads: int = 0,
    device: torch.device = CPU,
    precision: Precision | None = None,
) -> Ours:
    """Return the parts of a run with default hyperparameters, in fp32 unless told otherwise."""
    config = TrainConfig(imgsz=imgsz, batch=batch, epochs=epochs)
    plan = plan_run(zoo_text(model), name=f"{model}.yaml", num_classes=len(data.names), imgsz=imgsz)
    network = build_network(plan, seed=0).to(device).to(memory_format=torch.channels_last).train()
    wiring = Wiring(
        config=config,
        settings=RunSettings(cache=cache, cache_dir=cache_dir, loader_threads=loader_threads),
        device=device,
        precision=precision or Precision("fp32", device),
        data=data,
        imgsz=plan.imgsz[0],
        strides=[int(stride) for stride in plan.strides],
        val_stride=val_stride(plan),
        batch=batch,
        anchors_grid=network.head.anchors.detach().float().cpu().numpy(),
        warn=lambda code, message: None,
        check=lambda: None,
    )
    return Ours(network, wiring)
