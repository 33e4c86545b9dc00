"""The program that trains one attempt: `python -m worker.trainer FOLDER`.

It knows only its folder, its signals and its lifeline (standard input, whose end means that the supervisor
is gone). It holds no address and no secret of the service. Only worker.simulator imports it, and what is
heavy is imported only after the first event lies in the journal.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.lifeline import STANDBY, STDERR, hold_lifeline, take_over
from yolocore.errors import (
    ArchitectureError,
    CheckpointError,
    ConfigError,
    CoreError,
    DatasetError,
    DiskFullError,
    NonFiniteError,
    OutOfMemoryError,
)
from yolocore.spec.config import parse_config
from yolocore.spec.events import BatchDone, PhaseChange, Resume, TrainEvent
from yolocore.train.console import line_of
from yolocore.train.journal import JournalWriter

Wish = Literal["cancel", "stop", "pause", "drain"]
DONE, DATA, INTERNAL, OUT_OF_MEMORY, DISK_FULL, STOPPED = 0, 65, 70, 71, 74, 75
EXITS: Mapping[type[CoreError], int] = {
    DatasetError: DATA,
    ConfigError: DATA,
    ArchitectureError: DATA,
    CheckpointError: DATA,
    NonFiniteError: DATA,
    OutOfMemoryError: OUT_OF_MEMORY,
    DiskFullError: DISK_FULL,
}
MAX_TEXT = 2000
# What a run imports at its start, and what it imports only when it validates for the first time.
HEAVY = (
    "yolocore.run",
    "yolocore.data.pixel_kernels",
    "yolocore.ops.norm_silu_kernels",
    "torchvision.ops",
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Architecture(_Part):
    name: str
    text: str


class _Dataset(_Part):
    manifest: Path
    images_root: Path


class _Resume(_Part):
    checkpoint: Path
    epoch: int
    batch: int
    after: str | None = None


class _Settings(_Part):
    device: str = "cpu"
    loader_threads: int = Field(default=1, ge=0)
    threads: int | None = Field(default=None, ge=1)
    cache: Literal["none", "ram", "disk"] = "none"
    cache_dir: Path | None = None
    checkpoint_every_s: float = Field(default=60.0, gt=0)
    onnx: bool = True


class Order(_Part):
    """config.json: what this attempt is to do."""

    v: Literal[1]
    job: str
    attempt: int
    config: dict[str, Any]
    architecture: _Architecture
    dataset: _Dataset
    weights: Path | None = None
    resume: _Resume | None = None
    settings: _Settings = _Settings()


class SignalControl:
    """Answers the loop with what `stop.json` says once SIGTERM has come; drain if it says nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stop.json"
        self._asked = threading.Event()

    def listen(self) -> None:
        """Take SIGTERM from now on; leave an interrupt at the terminal to the supervisor."""
        signal.signal(signal.SIGTERM, lambda *_: self._asked.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def poll(self) -> Wish | None:
        """Return the wish, None as long as there is none."""
        if not self._asked.is_set():
            return None
        try:
            kind = json.loads(self._path.read_text()).get("kind")
        except (OSError, ValueError, AttributeError):
            return "drain"
        for wish in get_args(Wish):
            if kind == wish:
                return wish  # type: ignore[no-any-return]
        return "drain"


def main(arguments: list[str]) -> int:
    """Do one attempt; return the exit code."""
    if len(arguments) != 1:
        print(f"usage: python -m worker.trainer FOLDER | {STANDBY}", file=sys.stderr)
        return INTERNAL
    if arguments == [STANDBY]:
        folder = stand_by()
    else:
        folder = Path(arguments[0]).resolve()
        hold_lifeline()
    faulthandler.enable(STDERR)  # a segmentation fault leaves its stack in the log
    faulthandler.register(signal.SIGUSR1, STDERR, all_threads=True)  # asked for if the run hangs
    control = SignalControl(folder)
    control.listen()
    return Attempt(folder, control).run()


def stand_by() -> Path:
    """Load all that a run needs, wait for the order, and return the folder it names.

    A worker that goes away ends this process by the lifeline, whatever it does then.
    """
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    hold_lifeline(orders.put)
    for module in HEAVY:
        importlib.import_module(module)
    return take_over(orders.get())


class Attempt:
    """One attempt with its journal, its log lines and its result file."""

    def __init__(self, folder: Path, control: SignalControl) -> None:
        self.folder = folder
        self.control = control
        self.num_batches = 0

    def run(self) -> int:
        """Train and write result.json; return the exit code. Whatever happens has a code and words."""
        journal = JournalWriter(self.folder / "events.jsonl")
        try:
            code, result = self._train(self._teller(journal))
        except CoreError as error:
            code, result = self._failed(error)
        except Exception as error:  # noqa: BLE001 - the top of a process: the last one to name it
            say(traceback.format_exc())
            code, result = self._crashed(error)
        try:
            journal.close()
        except OSError as error:
            say(f"the journal could not be written to its end: {error}")
            code = code or DISK_FULL
        return self._write(result, code)

    def _teller(self, journal: JournalWriter) -> Callable[[TrainEvent], None]:
        def tell(event: TrainEvent) -> None:
            self.num_batches += isinstance(event, BatchDone)
            journal.emit(event)
            line = line_of(event)
            if line is not None:
                say(f"{time.strftime('%H:%M:%S')} {line}", sys.stdout)

        return tell

    def _train(self, emit: Callable[[TrainEvent], None]) -> tuple[int, dict[str, Any]]:
        order = self._read_order()
        if order.resume is not None:
            emit(Resume(epoch=order.resume.epoch, batch=order.resume.batch, after=order.resume.after))
        emit(PhaseChange(phase="preparing"))
        config = parse_config(order.config)

        from yolocore.run import train
        from yolocore.train.request import RunRequest, RunSettings

        request = RunRequest(
            folder=self.folder,
            config=config,
            architecture_name=order.architecture.name,
            architecture_text=order.architecture.text,
            manifest=order.dataset.manifest,
            images_root=order.dataset.images_root,
            weights=order.weights,
            resume=order.resume.checkpoint if order.resume else None,
            announced=True,
            settings=RunSettings(**order.settings.model_dump()),
        )
        ended = train(request, emit=emit, control=self.control)
        result = self._result(ended.outcome, kind=ended.kind, metrics=ended.metrics)
        if ended.best is not None:
            result["best"] = vars(ended.best)
        return (DONE if ended.kind in (None, "stop") else STOPPED), result

    def _read_order(self) -> Order:
        path = self.folder / "config.json"
        try:
            return Order.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigError(f"config.json cannot be used: {error}", place="config.json") from error

    def _failed(self, error: CoreError) -> tuple[int, dict[str, Any]]:
        say(f"failed: {error.code}: {error.message}")
        code = next((EXITS[kind] for kind in type(error).__mro__ if kind in EXITS), INTERNAL)
        evidence: dict[str, Any] = {"batches_done": self.num_batches}
        if error.code != type(error).code:  # the book knows the classes; the finer name is for people
            evidence["cause"] = error.code
        if error.problems:
            evidence["problems"] = [problem.as_dict() for problem in error.problems[:20]]
        return code, self._result(
            "failed",
            code=type(error).code,
            message=error.message[:MAX_TEXT],
            place=error.place,
            value=None if error.value is None else error.value[:MAX_TEXT],
            evidence=evidence,
        )

    def _crashed(self, error: Exception) -> tuple[int, dict[str, Any]]:
        message = f"{type(error).__name__}: {error}"[:MAX_TEXT]
        evidence = {"batches_done": self.num_batches, "traceback": traceback.format_exc()[-MAX_TEXT:]}
        return INTERNAL, self._result("failed", code="INTERNAL", message=message, evidence=evidence)

    def _result(self, outcome: str, **fields: Any) -> dict[str, Any]:
        empty = dict.fromkeys(("kind", "code", "message", "place", "value", "best", "metrics"))
        return {"v": 1, "outcome": outcome, **empty, "evidence": {}, **fields}

    def _write(self, result: dict[str, Any], code: int) -> int:
        path = self.folder / "result.json"
        temporary = path.with_suffix(".json.part")
        try:
            temporary.write_text(json.dumps(result, ensure_ascii=False))
            temporary.replace(path)
        except OSError as error:
            say(f"result.json could not be written: {error}")
            return code or DISK_FULL
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return code


def say(text: str, to: TextIO | None = None) -> None:
    """Print a line to the log, which may be on a full disk: whoever needs room most says so by its name."""
    with contextlib.suppress(OSError):
        print(text, file=to or sys.stderr, flush=True)


def leave(code: int) -> NoReturn:
    """End this process at once: taking the interpreter down with torch in it takes seconds, for nothing.

    All that counts lies on disk by then. A cancelled job would be final that much later, a worker busy.
    """
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
