"""What training costs beside another trainer, `ultralytics`: two programs that take turns by the epoch.

Its yolov5n is not ours: the same backbone with another head, which takes more operations. The figures of the
training loop say how many, and what the ratio is for an operation. It needs the environment of
`make bench-peer`, and only looks at what the programs of `peer_run` tell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.bench import PEER, Bench, one_thread
from benchmarks.machine import peak_bytes
from benchmarks.photographs import photographs
from benchmarks.stats import MB, Bound, Figure, median, pair_ratios, spread
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.spec.zoo import zoo_text

SIDES = ("ours", "theirs")
CACHES = {False: "no cache", True: "images in memory"}
_WITHOUT = {False: "theirs reads not every tile of a mosaic anew, or it would be slower; ", True: ""}
LOOP_BOUND = Bound(1.75, "x", at_least=True)
LOADER_BOUND = Bound(2.2, "x", at_least=True)
_NUM_CLASSES, _FULL_SIDE = 80, 640  # of the published models, for which operations are counted
Answer = Mapping[str, float]
# It has a value and no bound: a machine without the other trainer has measured all that it was asked to.
ABSENT = Figure("training beside ultralytics", 0.0, "not measured: run `make bench-peer`", None, "")


@dataclass(frozen=True)
class Sizes:
    """Epochs in turn, sides in pixels, images of a batch and of each split.

    A part of a split is enough: more and shorter turns say more than fewer and longer ones.
    """

    pairs: int
    num_train: int
    num_val: int
    imgsz: int
    loader_imgsz: int
    batch: int

    def options(self, data: Path, epochs: int, *, ram: bool) -> dict[str, Any]:
        """Return what a program is told."""
        return {"data": str(data), "imgsz": self.imgsz, "batch": self.batch, "epochs": epochs, "ram": ram}


FULL, QUICK = Sizes(4, 80, 34, 320, 640, 16), Sizes(1, 6, 4, 64, 96, 4)


class Program:
    """One side at work; it stands still between turns."""

    def __init__(self, side: str, what: str, options: Mapping[str, Any], bench: Bench) -> None:
        folder = bench.folder / f"peer-{what}-{CACHES[options['ram']]}-{side}".replace(" ", "-")
        folder.mkdir()
        python = sys.executable if side == "ours" else str(PEER / "bin/python")
        self._log = folder / "log"
        reading, writing = os.pipe()
        command = [python, "-m", "benchmarks.peer_run", side, what, str(writing)]
        self.started_at = time.time()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps({**options, "folder": str(folder)})],
                cwd=folder,
                env=one_thread(bench) | _quiet(folder),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
            )
        os.close(writing)
        self._answers = os.fdopen(reading, encoding="utf-8")

    def answer(self, key: str) -> Answer:
        """Return the next line that holds this key; raises OSError with the end of the log if none comes."""
        for line in self._answers:
            found: Answer = json.loads(line)
            if key in found:
                return found
        raise OSError(f"a program has ended early: {self._log.read_text(errors='replace')[-2000:]}")

    def go(self) -> None:
        """Let it take its next turn."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    @property
    def peak_bytes(self) -> int:
        """The most it held so far."""
        return peak_bytes(psutil.Process(self._process.pid))

    def end(self) -> None:
        """End it where it stands."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _quiet(folder: Path) -> dict[str, str]:
    """Return what keeps the other trainer off the network, and its settings in a folder."""
    return {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder / "settings")}


@dataclass(frozen=True)
class Epochs:
    """What the turns of both took, without the first one of each, and how they began.

    Processor seconds by side; `first_step_s` is wall time from the start of the program.
    """

    train_s: Mapping[str, list[float]]
    epoch_s: Mapping[str, list[float]]
    first_step_s: Mapping[str, float]
    peak_bytes: Mapping[str, int]


@dataclass(frozen=True)
class Loading:
    """Images per processor second of each turn, by side, and the size of the other trainer's yolov5n."""

    speeds: Mapping[str, list[float]]
    gflops: float


def measure(bench: Bench) -> list[Figure]:
    """Train and load in turn; without the other trainer one line says how to get it."""
    if not is_ready(PEER):
        return [ABSENT]
    sizes = QUICK if bench.quick else FULL
    pictures = photographs(bench.folder, quick=bench.quick)
    data = with_lists(pictures.data_yaml, bench.folder, num_train=sizes.num_train, num_val=sizes.num_val)
    loading = {ram: time_loaders(bench, data, sizes, ram=ram) for ram in (True, False)}
    epochs = {ram: time_epochs(bench, data, sizes, ram=ram) for ram in (True, False)}
    work = (
        f"{sizes.num_train} train and {sizes.num_val} val of {pictures.described}, {sizes.imgsz} px, "
        f"batch {sizes.batch}"
    )
    return [
        *loop_figures(epochs, gflops=loading[True].gflops, images=sizes.num_train, work=work),
        *rest_figures(epochs[False]),
        *loader_figures(loading, sizes.loader_imgsz),
    ]


def is_ready(environment: Path) -> bool:
    """Tell whether the other trainer's environment was set up to its end."""
    return (environment / ".ready").is_file()


def with_lists(data_yaml: Path, folder: Path, *, num_train: int, num_val: int) -> Path:
    """Write a data.yaml of the first pictures of each split, in lists as both trainers read them.

    The numbers are the most that are taken. Returns the path.
    """
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    found = {"path": str(folder.resolve()), "names": content["names"]}
    for split, most in (("train", num_train), ("val", num_val)):
        pictures = sorted(path for path in (data_yaml.parent / content[split]).iterdir() if path.is_file())
        listed = folder / f"peer-{split}.txt"
        listed.write_text("".join(f"{path.resolve()}\n" for path in pictures[:most]), encoding="utf-8")
        found[split] = listed.name
    target = folder / "peer-data.yaml"
    target.write_text(yaml.safe_dump(found), encoding="utf-8")
    return target


def time_epochs(bench: Bench, data: Path, sizes: Sizes, *, ram: bool) -> Epochs:
    """Train one epoch of each that does not count, and then some in turn."""
    first_step_s, programs = {}, {}
    train_s: dict[str, list[float]] = {side: [] for side in SIDES}
    epoch_s: dict[str, list[float]] = {side: [] for side in SIDES}
    with ExitStack() as stack:
        for side in SIDES:
            program = Program(side, "epochs", sizes.options(data, sizes.pairs + 2, ram=ram), bench)
            programs[side] = program
            stack.callback(program.end)
            first_step_s[side] = program.answer("first_step_at")["first_step_at"] - program.started_at
            program.answer("epoch_s")
        for _ in range(sizes.pairs):
            for side, program in programs.items():
                program.go()
                found = program.answer("epoch_s")
                train_s[side].append(found["train_s"])
                epoch_s[side].append(found["epoch_s"])
        peaks = {side: program.peak_bytes for side, program in programs.items()}
    return Epochs(train_s, epoch_s, first_step_s, peaks)


def time_loaders(bench: Bench, data: Path, sizes: Sizes, *, ram: bool) -> Loading:
    """Make the batches of one epoch of each that does not count, and then of some in turn."""
    turns = sizes.pairs + 1
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    programs, gflops = {}, 0.0
    with ExitStack() as stack:
        for side in SIDES:
            options = sizes.options(data, turns + 2, ram=ram) | {"imgsz": sizes.loader_imgsz}
            program = programs[side] = Program(side, "loader", options, bench)
            stack.callback(program.end)
            if side == "theirs":
                gflops = program.answer("gflops")["gflops"]
            program.answer("loader_s")
        for _ in range(turns):
            for side, program in programs.items():
                program.go()
                found = program.answer("loader_s")
                speeds[side].append(found["images"] / found["loader_s"])
    return Loading(speeds, gflops)


def loop_figures(epochs: Mapping[bool, Epochs], *, gflops: float, images: int, work: str) -> list[Figure]:
    """Return the speed of the training loop by whether images are in memory; `images` are those of an epoch.

    `gflops` are the other network's.
    """
    weight = gflops / our_gflops()
    heavier = (
        f"its yolov5n has another head and is the heavier network, {gflops:.1f} GFLOPs by its own account "
        f"against {our_gflops():.1f}, {weight:.2f} times"
    )
    figures = []
    for ram, measured in sorted(epochs.items()):
        ratios = pair_ratios(measured.train_s["theirs"], measured.train_s["ours"])
        ours, theirs = (images / median(measured.train_s[side]) for side in SIDES)
        shown = f"{median(ratios):.2f} ({ours:.1f} of {theirs:.1f} images/s of processor time)"
        how = f"median of {len(ratios)} epochs in turn, {spread(ratios)}; {work}, one thread; {heavier}"
        name = f"training loop against ultralytics, {CACHES[ram]}"
        figures.append(Figure(name, median(ratios), shown, LOOP_BOUND, how))
        derived = median(ratios) / weight
        how = "derived: the ratio above divided by that of the networks' operations"
        figures.append(Figure("- per operation of the network", derived, f"{derived:.2f}", None, how))
    return figures


def rest_figures(epochs: Epochs) -> list[Figure]:
    """Return what else the epochs without a cache tell: validation, start-up, memory."""
    whole = pair_ratios(epochs.epoch_s["theirs"], epochs.epoch_s["ours"])
    seconds = {side: median(epochs.epoch_s[side]) for side in SIDES}
    peaks = {side: epochs.peak_bytes[side] / MB for side in SIDES}
    return [
        _versus(
            "- whole epoch with validation",
            seconds,
            "s of processor time",
            f"median of the {len(whole)} epochs without a cache, {spread(whole)}; with checkpoints",
            ratio=median(whole),
        ),
        _versus(
            "- from start to first step",
            epochs.first_step_s,
            "s",
            "wall, of one start each: a new interpreter until its first batch is trained",
        ),
        _versus("- peak memory", peaks, "MB RSS", "of the same two programs"),
    ]


def _versus(
    name: str, values: Mapping[str, float], unit: str, how: str, *, ratio: float | None = None
) -> Figure:
    """Return how many times more the other trainer takes."""
    found = values["theirs"] / values["ours"] if ratio is None else ratio
    shown = f"{found:.2f} ({values['ours']:.3g} of {values['theirs']:.3g} {unit})"
    return Figure(name, found, shown, None, how)


def loader_figures(loading: Mapping[bool, Loading], imgsz: int) -> list[Figure]:
    """Return the speed of the loaders alone by whether images are in memory."""
    figures = []
    for ram, measured in loading.items():
        ratios = pair_ratios(measured.speeds["ours"], measured.speeds["theirs"])
        ours, theirs = (median(measured.speeds[side]) for side in SIDES)
        shown = f"{median(ratios):.2f} ({ours:.0f} of {theirs:.0f} images/s of processor time)"
        how = (
            f"median of {len(ratios)} epochs in turn, {spread(ratios)}; {imgsz} px, mosaic and colours, "
            f"one thread; {_WITHOUT[ram]}ours also matches boxes to anchors"
        )
        name = f"loader against ultralytics, {CACHES[ram]}"
        figures.append(Figure(name, median(ratios), shown, LOADER_BOUND if ram else None, how))
    return figures


def our_gflops() -> float:
    """Return the operations of our yolov5n as published: 640 pixels, 80 classes."""
    architecture = parse_architecture(zoo_text("yolov5n"))
    plan = plan_architecture(architecture, num_classes=_NUM_CLASSES, imgsz=(_FULL_SIDE, _FULL_SIDE))
    return plan.flops / 1e9
