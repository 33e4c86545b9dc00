"""Whole runs for the check of a GPU: by the core's entry in each precision, by its program on all devices.

It must not know the other parts of the check.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import PACKAGE_ROOT
from benchmarks.gpu_form import NOT_MEASURED, Section, absent, number, reason_of
from benchmarks.gpu_steps import REDUCED, Check, free
from yolocore.run import train
from yolocore.spec.config import AUTO_BATCH, TrainConfig
from yolocore.spec.events import BatchDone, EpochDone, Log, TrainEvent, Warned
from yolocore.spec.zoo import zoo_text
from yolocore.train.request import NoControl, RunRequest, RunSettings

_DDP_WITHIN_S = 900.0
_DASHES = ("-",) * 5


def whole_runs(check: Check) -> Section:
    """Train to the end by the core's own entry, with its check of the precision at the start."""
    rows = [_run(name, check, precision=name) for name in ("fp32", *REDUCED)]
    rows.append(_run("measured batch", check, batch=AUTO_BATCH))
    if "compile" not in {field.name for field in dataclasses.fields(RunSettings)}:
        rows.append(("compiled", f"{NOT_MEASURED}: this version has no such setting", *_DASHES))
    elif check.device.type == "cpu":
        rows.append(("compiled", f"{NOT_MEASURED}: it takes minutes and gains nothing on a CPU", *_DASHES))
    else:
        rows.append(_run("compiled", check, settings={"compile": True}))
    columns = ("run", "outcome", "last loss", "mAP50", "scale", "images/s, last", "said")
    remarks = [f"yolov5n, {check.sizes.epochs} epochs of {check.sizes.num_train} made scenes"]
    return Section("Whole runs", columns, rows, remarks)


def _run(
    name: str, check: Check, *, settings: dict[str, Any] | None = None, **changes: Any
) -> tuple[str, ...]:
    """Train once; return a row of the table."""
    events: list[TrainEvent] = []
    sizes = check.sizes
    values = {"imgsz": sizes.side, "batch": sizes.small_batch, "epochs": sizes.epochs, **changes}
    request = RunRequest(
        folder=Path(tempfile.mkdtemp(dir=check.folder)),
        config=TrainConfig(**values),
        architecture_name="yolov5n.yaml",
        architecture_text=zoo_text("yolov5n"),
        data_yaml=check.data_yaml,
        settings=RunSettings(
            device=str(check.device), cache="ram", pictures=False, loader_threads=2, **(settings or {})
        ),
    )
    try:
        outcome = train(request, emit=events.append, control=NoControl()).outcome
    except Exception as error:  # noqa: BLE001 - whatever fails there is a finding, and the rest goes on
        return name, reason_of(error), *_DASHES
    finally:
        free(check.device)
    return row_of(name, outcome, events)


def row_of(name: str, outcome: str, events: Sequence[TrainEvent]) -> tuple[str, ...]:
    """Return what a run's events tell: last losses, score, scale, speed, and all warnings by code."""
    batches = [event for event in events if isinstance(event, BatchDone)]
    epochs = [event for event in events if isinstance(event, EpochDone)]
    last = batches[-1]
    terms = (last.loss.box, last.loss.obj, last.loss.cls)
    loss = None if None in terms else sum(term for term in terms if term is not None)
    said = [f"{event.code}: {event.message}" for event in events if isinstance(event, Warned)]
    said += [
        event.message for event in events if isinstance(event, Log) and event.message.startswith("batch")
    ]
    return (
        name,
        outcome,
        "not finite" if loss is None else number(loss),
        number(epochs[-1].map50, 3) if epochs else "-",
        "-" if last.amp_scale is None else number(last.amp_scale),
        f"{last.images_per_s:.1f}",
        "; ".join(said) or "nothing",
    )


def several(check: Check) -> Section:
    """Train on all GPUs at once by the core's own program; on a CPU in two processes."""
    title, on_cuda = "Several devices", check.device.type == "cuda"
    count = torch.cuda.device_count() if on_cuda else 2
    if count < 2:
        return absent(title, "one GPU")
    rows = [_together(check, count, "training")]
    if on_cuda:
        rows.append(_together(check, count, "with SyncBatchNorm", "--set", "sync_bn=true"))
    backend = "nccl" if on_cuda else "gloo"
    return Section(
        title,
        ("what", "outcome", "seconds", "last line"),
        rows,
        [f"{count} processes over {backend}, batch {count * check.sizes.small_batch} over all"],
    )


def _together(check: Check, count: int, name: str, *options: str) -> tuple[str, ...]:
    sizes, out = check.sizes, Path(tempfile.mkdtemp(dir=check.folder)) / "run"
    command = [sys.executable, "-m", "yolocore", "train", "--data", str(check.data_yaml), "--cfg", "yolov5n"]
    command += ["--out", str(out), "--imgsz", str(sizes.side), "--batch", str(count * sizes.small_batch)]
    command += ["--epochs", "2", "--device", check.device.type, "--no-pictures"]
    command += ["--set", f"world_size={count}", *options]
    environment = dict(os.environ) | {"PYTHONPATH": str(PACKAGE_ROOT)}
    began = time.monotonic()
    try:
        asked = subprocess.run(
            command,
            cwd=check.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_DDP_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        return name, f"HANGS: not done after {_DDP_WITHIN_S:.0f} s", "-", "-"
    said = (asked.stdout if asked.returncode == 0 else asked.stderr).strip().splitlines() or [""]
    outcome = "succeeded" if asked.returncode == 0 else f"FAILED with {asked.returncode}"
    return name, outcome, f"{time.monotonic() - began:.0f}", said[-1].replace(str(check.folder), "...")[:300]
