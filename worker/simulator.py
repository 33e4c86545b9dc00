"""Pretends to train one attempt, in seconds and without torch: `python -m worker.simulator FOLDER`.

Same folder, journal, signals, lifeline, exit codes and files as `worker.trainer`, so that all that stands
around a trainer can be put through faults quickly. What it writes says that it is no weights, and it works
only below a folder marked as one for simulated jobs. It must not know the service.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import math
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.lifeline import hold_lifeline
from worker.pace import Pace, PaceReader, suffer
from worker.trainer import DONE, INTERNAL, STOPPED, Attempt, Order, SignalControl, Wish, leave
from yolocore.errors import CheckpointError
from yolocore.spec.config import TrainConfig, parse_config
from yolocore.spec.dataset import Manifest
from yolocore.spec.events import (
    ArtifactKind,
    ArtifactSaved,
    BatchDone,
    CheckpointSaved,
    EpochDone,
    Log,
    LossParts,
    PhaseChange,
    Resume,
    Start,
    TrainEvent,
)
from yolocore.train.files import naming_full_disk, publish
from yolocore.train.results import results_csv
from yolocore.train.stopping import EarlyStopping

FORMAT: Literal["trainshed-simulated-1"] = "trainshed-simulated-1"
NOTE = "simulated: no network was trained, these are no weights"
MARK = "SIMULATED"  # as api.domain.settings has it
_HELD_S = 0.02
_MAX_IMAGES_PER_S = 1e6


class HaltedError(Exception):
    """A wish to end the run, between two batches."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        self.wish = wish


class State(BaseModel):
    """All that a run depends on, as a checkpoint keeps it; `digest` stands for the weights."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["trainshed-simulated-1"] = FORMAT
    note: str = NOTE
    digest: str
    epoch: int = 0
    batch: int = 0
    phase: Literal["train", "validate"] = "train"
    rows: list[EpochDone] = []
    best: EpochDone | None = None
    best_digest: str | None = None


class Simulation:
    """The loop of a simulated run: every figure is a function of config, epoch and batch alone."""

    def __init__(
        self,
        order: Order,
        config: TrainConfig,
        *,
        folder: Path,
        emit: Callable[[TrainEvent], None],
        poll: Callable[[], Wish | None],
    ) -> None:
        self.order = order
        self.config = config
        self.folder = folder
        self.emit = emit
        self.pace = PaceReader(folder)
        self._poll = poll
        self._deaf = False
        self._saved_at = time.monotonic()
        self._saved: tuple[int, int, str] | None = None
        self._stopping = EarlyStopping(config.patience)
        self.manifest = _read_manifest(order.dataset.manifest)
        self.num_images = sum(image.split == "train" for image in self.manifest.images)
        self.batches = self.pace().batches or max(1, math.ceil(self.num_images / max(1, config.batch)))
        self.state = self._first_state()
        for row in self.state.rows:
            self._stopping.update(row.epoch, row.fitness)

    def _first_state(self) -> State:
        if self.order.resume is None:
            return State(digest=link(self.config.config_hash(), str(self.batches)))
        path = self.order.resume.checkpoint
        try:
            return State.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{path.name} is no simulated checkpoint", place=str(path)) from error

    @property
    def ended(self) -> bool:
        """Tell whether all epochs are done or early stopping has ended the run."""
        epoch = self.state.epoch
        return epoch >= self.config.epochs or (epoch > 0 and self._stopping.exhausted(epoch - 1))

    def run(self) -> Wish | None:
        """Go to the end; return the wish that ended it earlier, if one did."""
        self._spend(self.pace().prepare_s)
        if self.order.resume is None:
            self._announce()
        try:
            while not self.ended:
                if self.state.phase == "train":
                    self._train_epoch()
                self._close_epoch()
        except HaltedError as halted:
            self.emit(PhaseChange(phase="stopping"))
            if halted.wish in ("pause", "drain") and self._saved != self._place():
                self._checkpoint()
            return halted.wish
        return None

    def _announce(self) -> None:
        config = self.config
        self.emit(
            Start(
                epochs=config.epochs,
                batches_per_epoch=self.batches,
                batch=config.batch,
                nominal_batch=config.nominal_batch,
                imgsz=config.imgsz,
                device="simulated",
                precision="simulated",
                threads=1,
                num_train_images=self.num_images,
                num_val_images=sum(image.split == "val" for image in self.manifest.images),
                classes=list(self.manifest.names),
                num_parameters=0,
                config_hash=config.config_hash(),
                simulated=True,
            )
        )
        self.emit(Log(level="warning", message=NOTE))

    def _train_epoch(self) -> None:
        self.emit(PhaseChange(phase="training"))
        state = self.state
        while state.batch < self.batches:
            pace = self.pace()
            self._hold()
            self._fail_if_due(pace)
            began = time.monotonic()
            time.sleep(pace.batch_s)
            state.digest = link(state.digest, f"{state.epoch} {state.batch}")
            self._tell_batch(pace, time.monotonic() - began)
            state.batch += 1
            if state.batch == self.batches:
                state.phase = "validate"
            if time.monotonic() - self._saved_at >= self.order.settings.checkpoint_every_s:
                self._checkpoint()
            self._check()

    def _tell_batch(self, pace: Pace, seconds: float) -> None:
        state = self.state
        for number in range(pace.logs):
            text = f"line {number} of batch {state.batch} "
            self.emit(Log(message=text.ljust(pace.log_bytes, ".")))
        self.emit(
            BatchDone(
                epoch=state.epoch,
                batch=state.batch,
                batches=self.batches,
                loss=self._losses(state.epoch + state.batch / self.batches, f"train {state.batch}"),
                lr=self._rates(),
                images_per_s=min(self.config.batch / max(seconds, 1e-9), _MAX_IMAGES_PER_S),
            )
        )

    def _close_epoch(self) -> None:
        self.emit(PhaseChange(phase="validating"))
        self._spend(self.pace().validate_s)
        state = self.state
        row = self._row(state.epoch)
        state.rows.append(row)
        self._stopping.update(row.epoch, row.fitness)
        if row.best:
            state.best, state.best_digest = row, state.digest
        self.emit(row)
        state.epoch, state.batch, state.phase = state.epoch + 1, 0, "train"
        self._checkpoint()
        if not self.ended:
            self._check()

    def _row(self, epoch: int) -> EpochDone:
        reached = 1 - math.exp(-(epoch + 1) / 10)
        map50 = min(1.0, reached * (1 + next(self._noise(f"map {epoch}"))))
        fitness = 0.1 * map50 + 0.9 * map50 / 2
        best = self.state.best
        return EpochDone(
            epoch=epoch,
            epochs=self.config.epochs,
            train=self._losses(epoch + 0.5, "epoch"),
            val=self._losses(epoch + 1, "val"),
            precision=map50,
            recall=map50,
            map50=map50,
            map50_95=map50 / 2,
            fitness=fitness,
            best=best is None or fitness >= best.fitness,
            lr=self._rates(),
            seconds=self.batches * self.pace().batch_s,
        )

    def _losses(self, at: float, what: str) -> LossParts:
        noise = self._noise(f"{what} {at}")
        box, obj, cls = (start * math.exp(-at / 10) * (1 + next(noise)) for start in (0.1, 0.05, 0.02))
        return LossParts(box=box, obj=obj, cls=cls)

    def _noise(self, what: str) -> Iterator[float]:
        generator = random.Random(f"{self.config.seed} {what}")
        while True:
            yield self.pace().noise * generator.uniform(-1, 1)

    def _rates(self) -> list[float]:
        return [0.01 * (1 - 0.99 * self.state.epoch / self.config.epochs)] * 3

    def _hold(self) -> None:
        """Wait as long as the pace holds the run at this very batch."""
        while self.pace().hold == (self.state.epoch, self.state.batch):
            self._check()
            time.sleep(_HELD_S)

    def _spend(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _HELD_S))

    def _check(self) -> None:
        wish = None if self._deaf else self._poll()
        if wish is not None:
            raise HaltedError(wish)

    def _fail_if_due(self, pace: Pace) -> None:
        here = (self.order.attempt, self.state.epoch, self.state.batch)
        for fault in pace.faults:
            if (fault.attempt, fault.epoch, fault.batch) == here:
                self._deaf = self._deaf or fault.how == "deaf"
                suffer(fault)

    def _place(self) -> tuple[int, int, str]:
        return self.state.epoch, self.state.batch, self.state.phase

    def _checkpoint(self) -> None:
        state = self.state
        name = f"e{state.epoch:04d}-b{state.batch:06d}.ckpt"
        written = publish(self._folder("checkpoints") / name, state.model_dump_json().encode())
        best = state.best
        self.emit(
            CheckpointSaved(
                path=f"checkpoints/{name}",
                sha256=written.sha256,
                size_bytes=written.size_bytes,
                epoch=state.epoch,
                batch=state.batch,
                best_epoch=best.epoch if best else None,
                best_fitness=best.fitness if best else None,
                phase=state.phase,
            )
        )
        self._saved_at, self._saved = time.monotonic(), self._place()

    def deliver(self, wish: Wish | None) -> None:
        """Write and announce what a run leaves: weights that are none, the table, at a normal end figures."""
        state = self.state
        self.emit(PhaseChange(phase="exporting"))
        self._spend(self.pace().export_s)
        self._artifact("best.pt", _no_weights(state.best_digest or state.digest), "weights")
        self._artifact("last.pt", _no_weights(state.digest), "weights")
        self._artifact("results.csv", results_csv(state.rows).encode(), "table", "text/csv")
        if wish is None:
            figures = json.dumps({"simulated": True, **(self.metrics() or {})}).encode()
            self._artifact("metrics.json", figures, "report", "application/json")

    def _artifact(
        self, name: str, data: bytes, kind: ArtifactKind, media_type: str = "application/octet-stream"
    ) -> None:
        written = publish(self._folder("artifacts") / name, data)
        self.emit(
            ArtifactSaved(
                name=name,
                path=f"artifacts/{name}",
                sha256=written.sha256,
                size_bytes=written.size_bytes,
                media_type=media_type,
                kind=kind,
            )
        )

    def _folder(self, name: str) -> Path:
        path = self.folder / name
        with naming_full_disk(path):
            path.mkdir(exist_ok=True)
        return path

    def best(self) -> dict[str, Any] | None:
        """Return the figures of the best epoch as a result names them."""
        best = self.state.best
        return best.model_dump(include={"epoch", "fitness", "map50", "map50_95"}) if best else None

    def metrics(self) -> dict[str, Any] | None:
        """Return the figures of the best epoch's row."""
        names = {"precision", "recall", "map50", "map50_95", "fitness"}
        return self.state.best.model_dump(include=names) if self.state.best else None


class SimulatedAttempt(Attempt):
    """An attempt whose training is pretended."""

    def _train(self, emit: Callable[[TrainEvent], None]) -> tuple[int, dict[str, Any]]:
        order = self._read_order()
        if order.resume is not None:
            went = order.resume
            emit(Resume(epoch=went.epoch, batch=went.batch, after=went.after, simulated=True))
        emit(PhaseChange(phase="preparing"))
        run = Simulation(
            order, parse_config(order.config), folder=self.folder, emit=emit, poll=self.control.poll
        )
        wish = run.run()
        if wish not in (None, "stop"):
            return STOPPED, self._result("stopped", kind=wish, best=run.best())
        run.deliver(wish)
        outcome = "stopped" if wish else "succeeded"
        return DONE, self._result(outcome, kind=wish, best=run.best(), metrics=run.metrics())


def _read_manifest(path: Path) -> Manifest:
    return Manifest.parse(path.read_bytes())


def _no_weights(digest: str) -> bytes:
    return json.dumps({"format": FORMAT, "note": NOTE, "digest": digest}).encode()


def final_digest(config: TrainConfig, batches: int) -> str:
    """Return what stands for the weights after all epochs, however often the run was interrupted."""
    digest = link(config.config_hash(), str(batches))
    for epoch in range(config.epochs):
        for batch in range(batches):
            digest = link(digest, f"{epoch} {batch}")
    return digest


def link(*parts: str) -> str:
    """Return the hash that follows from the one before and from what was done since."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def is_allowed(folder: Path) -> bool:
    """Tell whether a folder lies below one that was made for simulated jobs."""
    return any((parent / MARK).is_file() for parent in folder.parents)


def main(arguments: list[str]) -> int:
    """Pretend one attempt; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m worker.simulator FOLDER", file=sys.stderr)
        return INTERNAL
    folder = Path(arguments[0]).resolve()
    if not is_allowed(folder):
        print(f"{folder} lies in no data folder for simulated jobs", file=sys.stderr)
        return INTERNAL
    hold_lifeline()
    # As the supervisor asks a child that hangs: into the log, which is this program's standard error.
    faulthandler.register(signal.SIGUSR1)
    control = SignalControl(folder)
    control.listen()
    return SimulatedAttempt(folder, control).run()


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
