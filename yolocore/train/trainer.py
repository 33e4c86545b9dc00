"""The training loop, and only the loop: it owns the order of things and nothing else.

Network, loss, loader, optimizer, schedule and precision come built; what is written to disk goes through
`output`, what is told goes through `emit`, what is wished comes through `poll`. It must not know a whole
configuration, a file name or the service.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from yolocore.data.collate import Batch
from yolocore.data.place import to_images
from yolocore.errors import NonFiniteError
from yolocore.eval.metrics import fitness
from yolocore.eval.validate import ValidationResult
from yolocore.loss.detection import BatchTargets, to_tensors
from yolocore.spec.events import BatchDone, EpochDone, Log, LossParts, PhaseChange, TrainEvent
from yolocore.train.checkpoint import Best, Position, Snapshot, Tensors
from yolocore.train.ema import Ema
from yolocore.train.optim import apply_point
from yolocore.train.precision import Precision
from yolocore.train.protocols import Interrupted, Loader, Loss, Output, Rates, Wish
from yolocore.train.schedule import Point
from yolocore.train.sentinel import REMEMBER_EVERY, Sentinel
from yolocore.train.state import restore_into, snapshot_of
from yolocore.train.stopping import EarlyStopping
from yolocore.train.system import SystemMeter, gpu_memory_bytes
from yolocore.train.watch import BadBatch, Watch

WINDOW_S = 0.2


class Trainer:
    """One run from its first batch, or from a snapshot, to its end."""

    def __init__(
        self,
        *,
        network: nn.Module,
        ema: Ema[Any],
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        schedule: Rates,
        loss: Loss,
        loader: Loader,
        batches_per_epoch: int,
        epochs: int,
        clip_norm: float,
        stopping: EarlyStopping,
        evaluate: Callable[[Any], ValidationResult],
        output: Output,
        emit: Callable[[TrainEvent], None],
        poll: Callable[[], Wish | None],
        checkpoint_every_s: float,
        forward: Callable[[torch.Tensor], Any] | None = None,
        frozen: Sequence[nn.Module] = (),
        weigh: Callable[[list[float]], None] | None = None,
        remember_every: int = REMEMBER_EVERY,
    ) -> None:
        """Take the parts of a run; the last four are for some runs only.

        `forward` stands for the network where it is shared or compiled, `frozen` are norms that stay in
        evaluation mode, `weigh` is told the mAP of each class after an epoch, before the next one begins.
        Every `remember_every` batches a run in reduced precision keeps a state to go back to; 0 keeps none
        and ends it at its first bad batch, as processes that share a network always do: one of them alone
        cannot go back.
        """
        self.network = network
        self.ema = ema
        self.optimizer = optimizer
        self.precision = precision
        self.schedule = schedule
        self.loss = loss
        self.loader = loader
        self.batches_per_epoch = batches_per_epoch
        self.epochs = epochs
        self.clip_norm = clip_norm
        self.stopping = stopping
        self.evaluate = evaluate
        self.output = output
        self.emit = emit
        self.poll = poll
        self.checkpoint_every_s = checkpoint_every_s
        self.forward = forward or network
        self.frozen = list(frozen)
        self.weigh = weigh
        self.sentinel = Sentinel(self, remember_every)
        self._begin()

    def _begin(self) -> None:
        """Set the state of a run that has not begun."""
        self.parameters = list(self.network.parameters())
        self.dtype = self.parameters[0].dtype
        self.watch = Watch(self.precision)
        self.system = SystemMeter(self.emit, self.precision.device)
        self.position = Position()
        self.best: Best | None = None
        self.best_weights: Tensors | None = None
        self.rows: list[EpochDone] = []
        self.class_maps: list[float] = []
        self.epoch_began = time.monotonic()
        self._num_skipped = 0
        self._saved: Position | None = None
        self._window_began = self._checkpointed = self.epoch_began

    @property
    def ended(self) -> bool:
        """Tell whether all epochs are done or early stopping has ended the run."""
        last = self.position.epoch - 1
        return self.position.epoch >= self.epochs or (last >= 0 and self.stopping.exhausted(last))

    def run(self) -> Wish | None:
        """Train to the end; return the wish that ended it earlier, if one did.

        pause and drain leave a checkpoint of this very batch. Raises NonFiniteError and DiskFullError.
        """
        try:
            while not self.ended:
                if self.position.phase == "train":
                    self._train_epoch(self.position.epoch)
                self._close_epoch(self.position.epoch)
        except Interrupted as interruption:
            self.emit(PhaseChange(phase="stopping"))
            if interruption.wish != "cancel":
                self.sentinel.settle()
            if interruption.wish in ("pause", "drain") and self._saved != self.position:
                self._save_checkpoint()
            return interruption.wish
        return None

    def check(self) -> None:
        """Raise Interrupted if there is a wish; called once a batch, in validation too."""
        self.system.tick()
        wish = self.poll()
        if wish is not None:
            raise Interrupted(wish)

    def _train_epoch(self, epoch: int) -> None:
        self.emit(PhaseChange(phase="training"))
        self.network.train()
        for module in self.frozen:
            module.eval()
        self._window_began = time.monotonic()
        if self.position.batch == 0:  # an epoch resumed in its middle keeps its time, sums and gradients
            self.epoch_began = self._window_began
            self.watch.begin_epoch()
            self.optimizer.zero_grad()
        while self.position.phase == "train":
            self.sentinel.remember()
            try:
                self._train_batches(epoch)
            except BadBatch as bad:
                self.sentinel.mend(bad)
                self._window_began = time.monotonic()

    def _train_batches(self, epoch: int) -> None:
        """Train from the present batch to the end of the epoch; raises BadBatch once one is noticed."""
        for batch in self.loader.epoch(epoch, self.position.batch):
            point = self.train_batch(batch)
            now = time.monotonic()
            if self.position.phase == "validate" or now - self._window_began >= WINDOW_S:
                self._log(batch.index, point)
            if now - self._checkpointed >= self.checkpoint_every_s:
                self._save_checkpoint()
            if self.sentinel.is_due:
                self.sentinel.remember()
            self.check()

    def train_batch(self, batch: Batch) -> Point:
        """Do one batch, and the step if it is due; leaves all figures on the device."""
        epoch, last_step = self.position.epoch, self.position.last_step
        counter = epoch * self.batches_per_epoch + batch.index
        point = self.schedule.at(counter)
        apply_point(self.optimizer, point)

        images, targets = self.place(batch)
        with self.precision.autocast():
            maps = self.forward(images)
        total, items = self.loss(maps, targets)
        self.precision.backward(total)

        if counter - last_step >= point.accumulate:
            norm = self.precision.step(self.optimizer, self.parameters, self.clip_norm)
            self.optimizer.zero_grad()
            self.ema.update()
            self.watch.add_step(counter, norm)
            last_step = counter

        self.watch.add(counter, items, batch.paths)
        is_last = batch.index + 1 == self.batches_per_epoch
        self.position = Position(epoch, batch.index + 1, last_step, "validate" if is_last else "train")
        return point

    def place(self, batch: Batch) -> tuple[torch.Tensor, BatchTargets]:
        """Return a batch's images, as the network takes them, and its matched cells on the device."""
        assert batch.matches is not None
        targets = to_tensors(batch.matches, self.precision.device, non_blocking=True)
        return to_images(batch, self.precision.device, self.dtype), targets

    def _log(self, index: int, point: Point) -> None:
        """Read the device, the only time in a window, and tell its means."""
        window = self.watch.read()
        now = time.monotonic()
        box, obj, cls = window.losses
        self.emit(
            BatchDone(
                epoch=self.position.epoch,
                batch=index,
                batches=self.batches_per_epoch,
                loss=LossParts(box=box, obj=obj, cls=cls),
                lr=list(point.lr),
                images_per_s=window.num_images / max(now - self._window_began, 1e-6),
                gpu_memory_bytes=gpu_memory_bytes(self.precision.device),
                amp_scale=window.scale,
            )
        )
        self._window_began = now
        if window.skipped > self._num_skipped:
            self._num_skipped = window.skipped
            self.emit(Log(message=f"the gradient scaler has skipped {window.skipped} step(s) so far"))

    def _close_epoch(self, epoch: int) -> None:
        """Validate the average, keep the books, checkpoint."""
        self._check_finite()  # before the average is judged, kept as the best and delivered
        self.emit(PhaseChange(phase="validating"))
        result = self.evaluate(self.ema.network)
        row = self._row(epoch, result)
        self.rows.append(row)
        self.stopping.update(epoch, row.fitness)
        if self.weigh is not None:
            self.class_maps = result.metrics.class_maps.tolist()
            self.weigh(self.class_maps)
        if row.best:
            self.best = Best(epoch, row.fitness, row.map50, row.map50_95)
            self.best_weights = {key: value.clone() for key, value in self.ema.network.state_dict().items()}
        self.output.finished_epoch(self.rows, self.ema.network.state_dict())
        self.emit(row)
        self.position = Position(epoch + 1, 0, self.position.last_step)
        self._save_checkpoint()
        if not self.ended:
            self.check()

    def _row(self, epoch: int, result: ValidationResult) -> EpochDone:
        train, val, metrics = self.watch.epoch_means(), result.losses, result.metrics
        value = fitness(metrics.map50, metrics.map50_95)
        return EpochDone(
            epoch=epoch,
            epochs=self.epochs,
            train=LossParts(box=train[0], obj=train[1], cls=train[2]),
            val=None if val is None else LossParts(box=val[0], obj=val[1], cls=val[2]),
            precision=metrics.precision,
            recall=metrics.recall,
            map50=metrics.map50,
            map50_95=metrics.map50_95,
            fitness=value,
            best=self.best is None or value >= self.best.fitness,
            lr=list(self.schedule.at((epoch + 1) * self.batches_per_epoch - 1).lr),
            seconds=time.monotonic() - self.epoch_began,
        )

    def _save_checkpoint(self) -> None:
        self._check_finite()
        self.output.checkpoint(self.snapshot())
        self._checkpointed = time.monotonic()
        self._saved = self.position

    def _check_finite(self) -> None:
        """Raise BadBatch or NonFiniteError rather than keep weights that any overflow has spoilt."""
        self.watch.check()
        if not self.ema.is_finite():
            place = f"epoch {self.position.epoch + 1}, batch {self.position.batch}"
            raise NonFiniteError(
                f"the averaged weights are not finite after {place} in {self.precision.name}", place=place
            )

    def snapshot(self) -> Snapshot:
        """Return the state of the run between two batches; tensors are the live ones, for writing at once."""
        return snapshot_of(self)

    def restore(self, snapshot: Snapshot) -> None:
        """Take a run up where a snapshot left it; raises CheckpointError where it is of another network."""
        restore_into(self, snapshot)
        if self.weigh is not None and self.class_maps:
            self.weigh(self.class_maps)
