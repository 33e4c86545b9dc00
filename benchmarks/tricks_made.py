"""Parts of a run of any configuration and model, and calls in turn; it must not know what is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.ours import CPU, Ours
from yolocore.model.build import build_network
from yolocore.spec.config import CacheName, TrainConfig
from yolocore.train.inputs import Data, plan_run, val_stride
from yolocore.train.precision import Precision, resolve_precision
from yolocore.train.request import RunSettings
from yolocore.wiring import Wiring


def made(
    data: Data, config: TrainConfig, text: str, *, cache: CacheName = "none", cache_dir: Path | None = None
) -> Ours:
    """Return the parts of a run of a configuration on a model's text, with the model's own anchors."""
    plan = plan_run(text, name="model.yaml", num_classes=len(data.names), imgsz=config.imgsz)
    network = build_network(plan, seed=config.seed).to(memory_format=torch.channels_last).train()
    wiring = Wiring(
        config=config,
        settings=RunSettings(cache=cache, cache_dir=cache_dir, loader_threads=0),
        device=CPU,
        precision=Precision(resolve_precision(config.precision, CPU), CPU),
        data=data,
        imgsz=plan.imgsz[0],
        strides=[int(stride) for stride in plan.strides],
        val_stride=val_stride(plan),
        batch=config.batch,
        anchors_grid=network.head.anchors.detach().float().cpu().numpy(),
        warn=lambda code, message: None,
        check=lambda: None,
    )
    return Ours(network, wiring)


def in_turn(
    pairs: int,
    on: Callable[[], Any],
    off: Callable[[], Any],
    *,
    times: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> tuple[list[float], list[float]]:
    """Call both in turn, each `times` times and once unmeasured before; return seconds of a call of each."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(pairs + 1):
        for seconds, way in zip(found, (on, off), strict=True):
            began = clock()
            for _ in range(times if turn else 1):
                way()
            if turn:
                seconds.append((clock() - began) / times)
    return found
