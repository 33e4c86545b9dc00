"""Checks training on a GPU, prints a form to send back: `python -m benchmarks.gpu_check [--device cuda:0]`.

It runs the core's own loop and the core's own program; a part that fails is a line of the form and stops no
other. It also runs on a CPU, to show that the check itself works.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_form import Section, attempted, form, largest_difference, mebibytes, number, reason_of
from benchmarks.gpu_runs import several, whole_runs
from benchmarks.gpu_steps import (
    ON_CPU,
    ON_CUDA,
    QUICK,
    REDUCED,
    Check,
    Kind,
    Sizes,
    Speed,
    free,
    numbers,
    settle,
    speed,
    waits,
    within_memory,
)
from benchmarks.machine import load, setting
from benchmarks.ours import ours
from benchmarks.sample import write_folder
from examples.digits import SceneRecipe
from yolocore.train.amp_check import LOSS_TOLERANCE
from yolocore.train.numerics import numerics
from yolocore.train.precision import Precision, PrecisionName

FORM = Path("gpu-check.md")


def machine(check: Check) -> Section:
    """Say what this is measured on."""
    where, rows = setting(load()), []
    for name, value in (
        ("date", where.date),
        ("revision", where.revision),
        ("system", f"{where.system}, Python {where.python}"),
        ("processor", f"{where.processor}, {where.cores} cores, {where.memory_bytes / 2**30:.0f} GiB"),
        ("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}"),
        ("driver", _driver()),
    ):
        rows.append((name, value))
    if torch.cuda.is_available():
        cudnn: Any = torch.backends.cudnn
        nccl: Any = torch.cuda.nccl
        rows.append(("cuDNN", str(cudnn.version())))
        rows.append(("NCCL", ".".join(str(part) for part in nccl.version())))
        rows.append(("TF32", f"cuDNN {cudnn.allow_tf32}, matmul {_matmul_tf32()}"))
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            size = f"compute capability {found.major}.{found.minor}, {mebibytes(found.total_memory)}"
            rows.append((f"GPU {index}", f"{found.name}, {size}"))
    else:
        rows.append(("GPU", "none that torch can use"))
    return Section("Machine", ("what", "is"), rows)


def _matmul_tf32() -> bool:
    return bool(torch.backends.cuda.matmul.allow_tf32)


def _driver() -> str:
    """Return what the driver's own program says, which also works where torch finds no GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "no nvidia-smi"
    asked = subprocess.run(
        [program, "--query-gpu=driver_version,power.limit,pcie.link.gen.current", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return "; ".join(asked.stdout.split("\n")).strip("; ") or asked.stderr.strip()[:200]


def precisions(check: Check) -> Section:
    """Train a few steps from the same weights in each precision and compare them with fp32."""
    steps, rows = 5, []
    kind = Kind("yolov5n", "fp32", max(check.sizes.side // 2, 64), check.sizes.small_batch)
    full = numbers(check.data, kind, check.device, steps)
    twice = numbers(check.data, kind, check.device, steps)
    rows.append(("fp32", _series(full.losses), _series(full.norms), "-", "-", "-"))
    for name in REDUCED:
        found = numbers(check.data, dataclasses.replace(kind, precision=name), check.device, steps)
        off = largest_difference(found.losses, full.losses)
        norms_off = largest_difference(found.norms, full.norms)
        verdict = "near" if off <= LOSS_TOLERANCE[name] and not found.islands else "LOOK AT IT"
        rows.append(
            (name, _series(found.losses), _series(found.norms), number(off), number(norms_off), verdict)
        )
    columns = ("precision", "losses", "gradient norms", "loss off fp32", "norm off fp32", "verdict")
    same = "equal to the bit" if twice == full else "NOT equal, LOOK AT IT"
    return Section(
        "Precisions",
        columns,
        rows,
        [
            f"yolov5n, {kind.side} px, batch {kind.batch}, {steps} steps from the same weights, made images",
            f"near is a loss within {', '.join(f'{LOSS_TOLERANCE[name]:g} ({name})' for name in REDUCED)}",
            f"fp32 a second time: {same}",
        ],
    )


def _series(values: Sequence[float]) -> str:
    return ", ".join(number(value) for value in values)


def waiting(check: Check) -> Section:
    """Look for operations of a step whose answer the host waits for; there should be none."""
    rows = []
    for name in ("fp32", *REDUCED):
        kind = Kind("yolov5n", name, max(check.sizes.side // 2, 64), check.sizes.small_batch)
        found = waits(check.data, kind, check.device)
        named = ", ".join(f"{key} {count}" for key, count in sorted(found.by_name.items())) or "none"
        places = "not measured: no CUDA" if found.places is None else ", ".join(found.places) or "none"
        rows.append((name, str(found.num_calls), named, places))
    return Section(
        "Waiting for the device in a step",
        ("precision", "operations, with views", "that wait, by name", "waits that CUDA reports"),
        rows,
    )


MODES: dict[str, tuple[PrecisionName, bool]] = {
    "fp32": ("fp32", False),
    "fp16": ("fp16", False),
    "fp16, channels-last": ("fp16", True),
    "bf16, channels-last": ("bf16", True),
}


def speeds(check: Check) -> Section:
    """Time steps of each network at growing batches until memory ends."""
    sizes, rows = check.sizes, []
    for model in sizes.models:
        for mode, (precision, channels_last) in MODES.items():
            for batch in sizes.batches:
                kind = Kind(model, precision, sizes.side, batch, channels_last)
                found = _speed(kind, check)
                if not isinstance(found, Speed):
                    rows.append((model, mode, str(batch), found, "-", "-"))
                    break
                memory = (mebibytes(found.allocated_bytes), mebibytes(found.reserved_bytes))
                rows.append((model, mode, str(batch), f"{found.images_per_s:.1f}", *memory))
                _tell(" ".join(rows[-1]))
    columns = ("network", "mode", "batch", "images/s", "peak allocated", "peak reserved")
    remarks = [
        f"{sizes.side} px; forward, loss, backward, clipping, step and average of a batch that lies ready, "
        f"wall, mean of {sizes.steps} after {sizes.warm}"
    ]
    return Section("Speed and memory of a step", columns, rows, remarks)


def _speed(kind: Kind, check: Check) -> Speed | str:
    try:
        warm, steps = check.sizes.warm, check.sizes.steps
        work = partial(speed, check.data, kind, check.device, warm=warm, steps=steps)
        return within_memory(work, check.device)
    except RuntimeError as error:
        return reason_of(error)


def loading(check: Check) -> Section:
    """Time the loader alone with one and two threads, and training that is fed by it."""
    sizes, rows = check.sizes, []
    pinned = "no CUDA to pin for"
    for threads in (1, 2):
        parts = ours(
            check.data,
            imgsz=sizes.side,
            batch=sizes.small_batch,
            cache="ram",
            loader_threads=threads,
            device=check.device,
        )
        with closing(parts.wiring.train_loader(None)) as loader:
            taken, began = 0, 0.0
            for epoch in range(2):
                began, taken = time.perf_counter(), 0
                for batch in loader.epoch(epoch):
                    taken += len(batch)
                    if check.device.type == "cuda":
                        pinned = str(batch.images.is_pinned())
            alone = taken / (time.perf_counter() - began)
        rows.append((f"loader alone, {threads} thread(s)", f"{alone:.1f}"))
    precision: PrecisionName = "fp16" if check.device.type == "cuda" else "fp32"
    for threads in (1, 2):
        fed = _fed(check, precision, threads)
        rows.append((f"training yolov5n in {precision}, fed by {threads} thread(s)", f"{fed:.1f}"))
    free(check.device)
    return Section(
        "Loading",
        ("what", "images/s"),
        rows,
        [f"{sizes.side} px, batch {sizes.small_batch}, images in memory, wall", f"page-locked: {pinned}"],
    )


def _fed(check: Check, precision: PrecisionName, threads: int) -> float:
    """Return images per second of the second epoch of training with a loader of so many threads."""
    parts = ours(
        check.data,
        imgsz=check.sizes.side,
        batch=check.sizes.small_batch,
        cache="ram",
        loader_threads=threads,
        device=check.device,
        precision=Precision(precision, check.device),
    )
    trainer = parts.trainer(lambda event: None)
    with closing(parts.wiring.train_loader(None)) as loader:
        taken, began = 0, 0.0
        for epoch in range(2):
            settle(check.device)
            began, taken = time.perf_counter(), 0
            for batch in loader.epoch(epoch):
                trainer.train_batch(batch)
                taken += len(batch)
        settle(check.device)
    return taken / (time.perf_counter() - began)


PARTS: dict[str, Callable[[Check], Section]] = {
    "Machine": machine,
    "Precisions": precisions,
    "Waiting for the device in a step": waiting,
    "Speed and memory of a step": speeds,
    "Loading": loading,
    "Whole runs": whole_runs,
    "Several devices": several,
}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def fill(device: torch.device, sizes: Sizes, folder: Path) -> list[Section]:
    """Measure every part; one that fails is a section that says so."""
    side = sizes.picture_side
    recipe = SceneRecipe(num_train=sizes.num_train, num_val=max(sizes.num_train // 8, 4), side=side)
    check = Check(device, sizes, write_folder(folder / "scenes", recipe), folder)
    sections = []
    for title, part in PARTS.items():
        _tell(f"{title} ...")
        with numerics(None, device):
            sections.append(attempted(title, partial(part, check)))
    return sections


def main(arguments: Sequence[str]) -> int:
    """Check, print the form and write it; return 0, or 1 where there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to see that the check works")
    parser.add_argument("--quick", action="store_true", help="small sizes, a minute or two")
    parser.add_argument("--out", type=Path, default=FORM, help=f"where the form is written ({FORM})")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            print(f"torch finds no {device}; driver: {_driver()}; --device cpu shows the check itself")
            return 1
        torch.cuda.set_device(device)
    sizes = QUICK if options.quick else ON_CUDA if device.type == "cuda" else ON_CPU
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        text = form(fill(device, sizes, Path(folder)), device=str(device), quick=options.quick)
    options.out.write_text(text, encoding="utf-8")
    print(text)
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
