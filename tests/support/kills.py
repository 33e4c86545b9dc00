"""Runs that are killed at chosen points: `python -m tests.support.kills FOLDER DATA_YAML`.

Reads lines `MODE/POINT` and answers each with the signal that ended its run. Each run happens in a process of
its own, forked from one that has only loaded the libraries, and ends by a real signal, so that nothing of the
program runs after the point. What it wrote is in FOLDER/MODE/POINT.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOLD = "told.txt"  # the checkpoints that were announced, a line each
LATE = ("torch._dynamo", "torchvision")  # what a run loads when it first needs it, which takes seconds
MODES: dict[str, tuple[str, bool]] = {  # precision, and whether a thread writes the checkpoints
    "fp32": ("fp32", False),
    "fp16": ("fp16", False),
    "background": ("fp32", True),
}


def die() -> None:
    """End this process as the kernel or a person would, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Killer:
    """Counts what happens in a run and kills the process at the `count`-th (from 0) thing of its kind."""

    kind: str
    count: int
    training: bool = False
    seen: dict[str, int] = field(default_factory=dict)

    def happened(self, kind: str) -> None:
        """Take note of one thing; does not return if it is the one."""
        if not self.training:  # what is tried before the first batch does not count
            return
        number = self.seen.get(kind, 0)
        self.seen[kind] = number + 1
        if (kind, number) == (self.kind, self.count):
            die()

    def install(self) -> None:
        """Hang on where the libraries and the interpreter tell what they do."""
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from yolocore.model.network import Network

        def forward(module: torch.nn.Module, *_: Any) -> None:
            if isinstance(module, Network):
                self.happened("train forward" if module.training else "val forward")

        torch.nn.modules.module.register_module_forward_hook(forward)
        register_optimizer_step_post_hook(lambda *_: self.happened("step"))
        sys.addaudithook(self._audit)

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "os.rename":
            self.happened(f"rename {Path(arguments[1]).suffix}")

    def tell(self, event: Any) -> None:
        """Take an event of the run before anybody else hears of it."""
        phase = getattr(event, "phase", "")
        self.training |= phase == "training"
        if self.kind == "half a checkpoint" and event.type == "epoch" and event.epoch == self.count:
            # The kernel ends the process in the middle of the next large file.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        self.happened(f"phase {phase}" if event.type == "phase" else event.type)


# What a run of three epochs of four batches does when it dies; see `Killer` for the kinds.
POINTS: dict[str, Callable[[], Killer]] = {
    "in the first batch": lambda: Killer("train forward", 0),
    "in mid-accumulation": lambda: Killer("train forward", 9),
    "between a step and its average": lambda: Killer("step", 4),
    "in the last batch of an epoch": lambda: Killer("train forward", 7),
    "in validation": lambda: Killer("val forward", 1),
    "before the table of an epoch is there": lambda: Killer("rename .csv", 1),
    "between validation and checkpoint": lambda: Killer("epoch", 1),
    "in the middle of writing a checkpoint": lambda: Killer("half a checkpoint", 1),
    "before a checkpoint gets its name": lambda: Killer("rename .ckpt", 6),
    "before a checkpoint is told": lambda: Killer("checkpoint", 6),
    "before the last checkpoint gets its name": lambda: Killer("rename .ckpt", 14),
    "while exporting": lambda: Killer("phase exporting", 0),
}


def run_and_die(folder: Path, data_yaml: Path, mode: str, killer: Killer) -> None:
    """Do a run with a checkpoint after every batch until the killer strikes."""
    from tests.support.runs import do_run, request

    precision, background = MODES[mode]
    folder.mkdir(parents=True)
    killer.install()

    def watch(event: Any) -> None:
        killer.tell(event)
        if event.type == "checkpoint":
            with (folder / TOLD).open("a") as told:
                told.write(event.path + "\n")

    do_run(
        request(folder, data_yaml, precision=precision),
        watch=watch,
        checkpoint_every_s=0.0,
        background_checkpoints=background,
    )


def kill_one(folder: Path, data_yaml: Path, mode: str, point: str) -> int:
    """Fork a process that does a run and dies; return the signal that ended it, 0 if none did."""
    pid = os.fork()
    if pid == 0:
        try:
            run_and_die(folder, data_yaml, mode, POINTS[point]())
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(root: Path, data_yaml: Path) -> None:
    """Do what the lines of standard input ask for until they end."""
    for name in ("yolocore.run", *LATE):  # once, before any thread is there
        importlib.import_module(name)
    for line in sys.stdin:
        mode, point = line.strip().split("/")
        print(kill_one(root / mode / point, data_yaml, mode, point), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
