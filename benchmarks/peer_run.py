"""A training program that `peer` starts beside another one: `peer_run SIDE WHAT ANSWERS OPTIONS`.

SIDE is `ours` or `theirs`, WHAT is `epochs` or `loader`, ANSWERS the number of an open pipe, OPTIONS one line
of JSON. Before each turn but the first it waits for a line on its input, so that two such programs take
turns; after each it tells the processor seconds as one line of JSON. It only knows the other trainer by its
documented arguments and callbacks, and imports nothing of either before it knows which one it is.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def cpu_s() -> float:
    """Return the processor seconds of this process and of those it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


class Turns:
    """Waits for its turn and tells what it took; the parts of an epoch are booked between."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._began: float | None = None
        self._trained: float | None = None
        self._has_stepped = False

    def tell(self, **values: float) -> None:
        """Write a line to whoever started this program."""
        os.write(self._answers, json.dumps(values).encode() + b"\n")

    def begin(self) -> None:
        """Tell of the epoch before, then wait for the next turn; the first one begins at once.

        What an epoch leaves to threads in the background counts as its own.
        """
        if self._began is not None:
            assert self._trained is not None, "an epoch trains"
            self.tell(train_s=self._trained - self._began, epoch_s=cpu_s() - self._began)
            self.wait()
        self._began = cpu_s()

    def trained(self) -> None:
        """Book the end of an epoch's training; validation follows."""
        self._trained = cpu_s()

    def stepped(self) -> None:
        """Tell when the first batch was done, and what it took to get there."""
        if not self._has_stepped:
            self._has_stepped = True
            self.tell(first_step_at=time.time(), start_s=cpu_s())

    def wait(self) -> None:
        """Wait for a line; end the program where nobody will write one."""
        if not sys.stdin.readline():
            raise SystemExit(0)


def our_epochs(options: dict[str, Any], turns: Turns) -> None:
    """Train as `python -m yolocore train` does, checkpoints and weights included."""
    from yolocore.run import train
    from yolocore.spec.config import TrainConfig
    from yolocore.spec.events import BatchDone, PhaseChange, TrainEvent
    from yolocore.spec.zoo import zoo_text
    from yolocore.train.request import NoControl, RunRequest, RunSettings

    def emit(event: TrainEvent) -> None:
        if isinstance(event, BatchDone):
            turns.stepped()
        elif isinstance(event, PhaseChange) and event.phase == "training":
            turns.begin()
        elif isinstance(event, PhaseChange) and event.phase == "validating":
            turns.trained()

    folder = Path(options["folder"])
    request = RunRequest(
        folder=folder,
        config=TrainConfig(imgsz=options["imgsz"], batch=options["batch"], epochs=options["epochs"]),
        architecture_name="yolov5n.yaml",
        architecture_text=zoo_text("yolov5n"),
        data_yaml=Path(options["data"]),
        settings=RunSettings(
            loader_threads=0,
            threads=1,
            cache="ram" if options["ram"] else "none",
            cache_dir=folder / "cache",
            keep_checkpoints=1,
            pictures=False,
        ),
    )
    train(request, emit=emit, control=NoControl())


def our_loader(options: dict[str, Any], turns: Turns) -> None:
    """Make the augmented batches of epochs, matched cells included, and train nothing."""
    from benchmarks.ours import CPU, ours, read_data
    from yolocore.train.numerics import numerics

    with numerics(1, CPU):
        parts = ours(
            read_data(Path(options["data"])),
            imgsz=options["imgsz"],
            batch=options["batch"],
            cache="ram" if options["ram"] else "none",
        )
        loader = parts.wiring.train_loader(None)
        for epoch in range(options["epochs"]):
            began = cpu_s()
            images = sum(len(batch.images) for batch in loader.epoch(epoch))
            turns.tell(loader_s=cpu_s() - began, images=images)
            turns.wait()


def their_model() -> Any:
    """Return the other trainer's yolov5n."""
    package: Any = importlib.import_module("ultralytics")
    package.settings.update({"sync": False})
    return package.YOLO("yolov5n.yaml")


def their_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the documented arguments of a run like ours.

    What is left out is the same by default: augmentation, rates, warm-up, deterministic kernels.
    """
    return {
        "data": options["data"],
        "imgsz": options["imgsz"],
        "batch": options["batch"],
        "epochs": options["epochs"],
        "cache": "ram" if options["ram"] else False,
        "project": options["folder"],
        "device": "cpu",
        "workers": 0,
        "optimizer": "SGD",
        "pretrained": False,
        "amp": False,
        "close_mosaic": 0,
        "conf": 0.001,
        "iou": 0.6,
        "max_det": 300,
        "plots": False,
        "verbose": False,
    }


def their_epochs(options: dict[str, Any], turns: Turns) -> None:
    """Train by the documented call, with callbacks that only take the time."""
    model = their_model()
    model.add_callback("on_train_start", lambda trainer: _one_thread())
    model.add_callback("on_train_epoch_start", lambda trainer: turns.begin())
    model.add_callback("on_train_batch_end", lambda trainer: turns.stepped())
    model.add_callback("on_train_epoch_end", lambda trainer: turns.trained())
    model.train(**their_arguments(options))


def their_loader(options: dict[str, Any], turns: Turns) -> None:
    """Tell the network's size, take epochs of batches from a run that is about to begin, train nothing."""
    model = their_model()
    _, parameters, _, gflops = model.info()
    turns.tell(parameters=float(parameters), gflops=float(gflops))

    def take(trainer: Any) -> None:
        _one_thread()
        for _ in range(options["epochs"]):
            began = cpu_s()
            images = sum(len(batch["img"]) for batch in trainer.train_loader)
            turns.tell(loader_s=cpu_s() - began, images=images)
            turns.wait()

    model.add_callback("on_train_start", take)
    model.train(**their_arguments(options))


def _one_thread() -> None:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)


PROGRAMS = {
    ("ours", "epochs"): our_epochs,
    ("ours", "loader"): our_loader,
    ("theirs", "epochs"): their_epochs,
    ("theirs", "loader"): their_loader,
}


def main(arguments: list[str]) -> None:
    """Run one side."""
    side, what, answers, options = arguments
    PROGRAMS[side, what](json.loads(options), Turns(int(answers)))


if __name__ == "__main__":
    main(sys.argv[1:])
