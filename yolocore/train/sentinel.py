"""What a run in reduced precision does about a batch that left the range: go back, find out, mend, go on.

It keeps one good state in memory. A bad batch is noticed a little after it was trained; the run then returns
to the good state, repeats what came before the bad batch, gives float32 to the module that overflows, and
trains on from that very batch. The outcome follows from which batch was bad, never from when it was noticed
or how old the good state was, so that a run interrupted in between comes out the same. It must not know
files, configuration or how events travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from yolocore.data.collate import Batch
from yolocore.errors import NonFiniteError
from yolocore.spec.events import Warned
from yolocore.train.checkpoint import Snapshot, cloned
from yolocore.train.diagnose import Finding, broken_images, find_overflow, finite_in_fp32
from yolocore.train.islands import Islands
from yolocore.train.state import restore_into, snapshot_of
from yolocore.train.watch import BadBatch

if TYPE_CHECKING:
    from yolocore.train.trainer import Trainer

REMEMBER_EVERY = 50
MAX_ISLANDS = 3


class Sentinel:
    """Watches over one trainer; `islands` are the modules it has put into float32."""

    def __init__(self, trainer: Trainer, every: int) -> None:
        """Keep a good state every `every` batches; none at all for 0."""
        self.islands = Islands()
        self._trainer = trainer
        self._every = every
        self._good: Snapshot | None = None

    @property
    def is_due(self) -> bool:
        """Tell whether a good state should be kept of where the run is now."""
        position = self._trainer.position
        return self._every > 0 and position.batch % self._every == 0 and position.phase == "train"

    def remember(self) -> None:
        """Keep the present state in memory if it is good; raises BadBatch if it is not. Nothing in fp32."""
        if self._every == 0 or self._trainer.precision.name == "fp32":
            return
        self._trainer.watch.check()
        self._good = cloned(snapshot_of(self._trainer))

    def settle(self) -> None:
        """Go back to the good state if a bad batch has been trained since the last reading.

        For a run that ends here: it meets that batch again when it goes on. Raises NonFiniteError where there
        is no good state.
        """
        try:
            self._trainer.watch.check()
        except BadBatch as bad:
            self._go_back(bad)

    def mend(self, bad: BadBatch) -> None:
        """Bring the run to just before a bad batch, in an arrangement that can train it.

        Raises NonFiniteError where there is none: in fp32, or where data or rate are the cause. Raises
        Interrupted, in a good state, on a wish.
        """
        self._go_back(bad)
        self._repeat_until(bad)
        batch, found = self._diagnose(bad)
        if not self._is_finite_in_fp32(batch):
            raise self._failure(bad, batch)
        if not self._made_islands(bad, batch, found):
            self._fall_back(bad)
        elif bad.cause == "streak":
            self._trainer.precision.restart(self._trainer.parameters)
            self._begin_steps_anew()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, as plain JSON; reads the device."""
        skipped, streak = self._trainer.watch.skips
        return {
            "islands": self.islands.names,
            "fell_back": self._trainer.precision.fell_back,
            "skipped": skipped,
            "streak": streak,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take a state back, an empty one as that of a run that has lost nothing."""
        trainer = self._trainer
        self.islands.load(state.get("islands", []), trainer.network, trainer.ema.network)
        if state.get("fell_back", False) and trainer.precision.name != "fp32":
            trainer.precision.fall_back([])
        trainer.watch.skips = (state.get("skipped", 0), state.get("streak", 0))

    # ---- back to just before the bad batch

    def _go_back(self, bad: BadBatch) -> None:
        trainer, good = self._trainer, self._good
        if good is None:
            raise self._failure(bad, next(self._batches(bad.counter)))
        epoch_began = trainer.epoch_began
        restore_into(trainer, cloned(good))  # a copy, because an optimizer trains on what it is given
        trainer.epoch_began = epoch_began
        trainer.watch.begin_window()
        at = f"batch {good.position.batch + 1}"
        self._warn("AMP_ROLLBACK", f"{bad.what}; the run goes back to {at}", bad)

    def _repeat_until(self, bad: BadBatch) -> None:
        """Train up to the bad batch once more, in silence; the last time was lost with the good state."""
        trainer = self._trainer
        position = trainer.position
        for batch in self._batches(position.epoch * trainer.batches_per_epoch + position.batch):
            if batch.index == bad.counter % trainer.batches_per_epoch:
                break
            trainer.train_batch(batch)
            trainer.check()
        trainer.watch.begin_window()

    def _batches(self, counter: int) -> Iterator[Batch]:
        """Return the batches from that one, counted over all epochs, to the end of its epoch."""
        return iter(self._trainer.loader.epoch(*divmod(counter, self._trainer.batches_per_epoch)))

    # ---- what is wrong, and the remedy

    def _diagnose(self, bad: BadBatch) -> tuple[Batch, Finding | None]:
        """Return the batch that overflows and what was found; the bad one and None if none does now.

        A step is made of several batches; any of them may have spoilt its gradients.
        """
        trainer, first = self._trainer, bad.counter
        if bad.cause != "loss":
            begin = trainer.position.epoch * trainer.batches_per_epoch
            first = max(trainer.position.last_step + 1, begin)
        for batch in self._batches(first):
            found = self._find(bad, batch)
            if found is not None or batch.index == bad.counter % trainer.batches_per_epoch:
                break
        return batch, found

    def _find(self, bad: BadBatch, batch: Batch) -> Finding | None:
        """Run a batch under hooks.

        After a loss that was not finite the gradients matter at a scale of 1 only: at a larger one they are
        the scaler's ordinary business.
        """
        trainer = self._trainer
        scale = 1.0 if bad.cause == "loss" else trainer.precision.scale or 1.0
        images, targets = trainer.place(batch)
        return find_overflow(
            trainer.network, trainer.loss, images, targets, precision=trainer.precision, scale=scale
        )

    def _is_finite_in_fp32(self, batch: Batch) -> bool:
        """Tell whether fp32 could train a batch; True where memory is too small for it, islands are not."""
        try:
            return finite_in_fp32(self._trainer.network, self._trainer.loss, *self._trainer.place(batch))
        except torch.OutOfMemoryError:
            return True

    def _made_islands(self, bad: BadBatch, batch: Batch, found: Finding | None) -> bool:
        """Turn modules into islands until the batch is finite; tell whether it has become so."""
        trainer, is_mended = self._trainer, False
        while found is not None and found.module is not None and len(self.islands) < MAX_ISLANDS:
            self.islands.add(found.module, trainer.network, trainer.ema.network)
            message = f"{found.where} in {trainer.precision.name}; {found.module} now runs in fp32"
            self._warn("AMP_ISLAND", f"{message} ({', '.join(batch.paths)})", bad)
            found = self._find(bad, batch)
            is_mended = found is None
        return is_mended

    def _fall_back(self, bad: BadBatch) -> None:
        name = self._trainer.precision.name
        self._trainer.precision.fall_back(self._trainer.parameters)
        self._good = None
        self._begin_steps_anew()
        why = "no single module could be blamed" if len(self.islands) < MAX_ISLANDS else "too many overflow"
        self._warn("AMP_OFF", f"{bad.what} in {name}, and {why}; the run goes on in fp32", bad)

    def _begin_steps_anew(self) -> None:
        """Count skipped steps in a row from 0, and drop what overflowed of the step under way."""
        trainer = self._trainer
        skipped, _ = trainer.watch.skips
        trainer.watch.skips = (skipped, 0)
        gradients = [parameter.grad for parameter in trainer.parameters if parameter.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            trainer.optimizer.zero_grad()

    # ---- words

    def _failure(self, bad: BadBatch, batch: Batch) -> NonFiniteError:
        """Return the error that ends the run, with the evidence: the data, or rate and weights."""
        trainer = self._trainer
        told = f"{bad.what} at {self._place(bad)} in {trainer.precision.name}"
        images, _ = trainer.place(batch)
        broken = broken_images(images, batch.targets)
        if broken:
            names = [batch.paths[number] for number in broken]
            message = f"{told}: its images or labels hold values that are not finite; mend or leave them out"
            return NonFiniteError(message, place=self._place(bad), value=", ".join(names))
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(weights.detach()) for weights in trainer.parameters])
        )
        rates = ", ".join(f"{lr:.3g}" for lr in trainer.schedule.at(bad.counter).lr)
        message = (
            f"{told}, though its images and labels are: the run has diverged (learning rates {rates}, norm "
            f"of all weights {float(norm):.4g}); lower the rate, or warm up for longer"
        )
        return NonFiniteError(message, place=self._place(bad), value=", ".join(bad.images))

    def _place(self, bad: BadBatch) -> str:
        epoch, index = divmod(bad.counter, self._trainer.batches_per_epoch)
        return f"epoch {epoch + 1}, batch {index + 1}"

    def _warn(self, code: str, message: str, bad: BadBatch) -> None:
        self._trainer.emit(Warned(code=code, message=message, place=self._place(bad)))
