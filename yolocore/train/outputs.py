"""The folder of an attempt: checkpoints, weights, tables and pictures, and the events that announce them.

Everything appears under its final name only when it is whole. It must not know the loop or the network.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from yolocore.spec.events import ArtifactKind, ArtifactSaved, CheckpointSaved, EpochDone, TrainEvent
from yolocore.train.checkpoint import (
    Snapshot,
    Tensors,
    checkpoint_name,
    checkpoints_in,
    cloned,
    named_place,
    save_checkpoint,
)
from yolocore.train.files import Written, describe, publish, remove_leftovers
from yolocore.train.results import results_csv

MEDIA_TYPES = {
    ".pt": "application/octet-stream",
    ".csv": "text/csv",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".onnx": "application/octet-stream",
    ".yaml": "application/yaml",
}
KINDS: dict[str, ArtifactKind] = {
    ".pt": "weights",
    ".onnx": "weights",
    ".csv": "table",
    ".png": "plot",
    ".jpg": "plot",
}
FORMAT = "trainshed-weights-1"


@dataclass(frozen=True)
class WeightsCard:
    """What a file of weights says about itself, so that it can be used without the run it came from.

    `strides` in pixels, `anchors_px` (levels, anchors, 2) in pixels, `architecture` the model YAML's text,
    `config` the run's configuration as JSON, `batch` the images of a batch, which it may have measured.
    """

    names: list[str]
    strides: list[float]
    anchors_px: list[list[list[float]]]
    architecture: str
    architecture_name: str
    imgsz: int
    config: str = ""
    batch: int = 0


def halved(tensors: Tensors) -> Tensors:
    """Return CPU copies, floating-point ones in half precision unless a value would not survive it.

    Anchors stay as they are: they are exact numbers, not learned ones.
    """
    result: Tensors = {}
    for key, tensor in tensors.items():
        half = tensor.detach().cpu()
        if half.is_floating_point() and not key.endswith("anchors"):
            half = half.half()
            if not torch.isfinite(half).all():
                half = tensor.detach().cpu().clone()
        result[key] = half
    return result


class RunFolder:
    """Writes what a run leaves behind and emits an event for each file."""

    def __init__(
        self,
        folder: Path,
        *,
        emit: Callable[[TrainEvent], None],
        card: WeightsCard,
        identity: Mapping[str, Any],
        save_period: int = 0,
        keep_checkpoints: int | None = None,
        background: bool = False,
    ) -> None:
        """Make the folders; `keep_checkpoints` None only adds them, a number prunes to the newest ones.

        With `background` a checkpoint is copied in memory and written by a thread, which emits its event;
        the loop goes on meanwhile. Close the folder, or use it as a context.
        """
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.checkpoints = folder / "checkpoints"
        self.card = card
        self._emit = emit
        self._identity = dict(identity)
        self._save_period = save_period
        self._keep = keep_checkpoints
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if background else None
        self._writing: Future[None] | None = None
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.artifacts)
        remove_leftovers(self.checkpoints)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.settle()
        except Exception:
            if error is None:  # else the first failure is the one to tell
                raise
        finally:
            if self._writer is not None:
                self._writer.shutdown()

    def settle(self) -> None:
        """Wait for the checkpoint that is being written; raises what its writing raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Write a checkpoint and tell where it is; raises what writing it, or the one before, raised."""
        self.settle()
        if self._writer is None:
            self._write(snapshot)
        else:
            self._writing = self._writer.submit(self._write, cloned(snapshot))

    def _write(self, snapshot: Snapshot) -> None:
        snapshot.identity = self._identity
        written = save_checkpoint(self.checkpoints / checkpoint_name(snapshot.position), snapshot)
        best = snapshot.best
        self._emit(
            CheckpointSaved(
                path=str(written.path.relative_to(self.folder)),
                sha256=written.sha256,
                size_bytes=written.size_bytes,
                epoch=snapshot.position.epoch,
                batch=snapshot.position.batch,
                best_epoch=best.epoch if best else None,
                best_fitness=best.fitness if best else None,
                phase=snapshot.position.phase,
            )
        )
        if self._keep is not None:
            for old in checkpoints_in(self.checkpoints)[: -self._keep]:
                if old != written.path:
                    old.unlink()

    def go_on_from(self, checkpoint: Path) -> None:
        """Delete the later checkpoints of this folder: they lead to an end this run will not have.

        A checkpoint that lies elsewhere says nothing about this folder; nothing is deleted then.
        """
        place = named_place(checkpoint)
        if place is None or checkpoint.resolve().parent != self.checkpoints.resolve():
            return
        for path in checkpoints_in(self.checkpoints):
            if (named_place(path) or place) > place:
                path.unlink()

    def finished_epoch(self, rows: list[EpochDone], ema: Tensors) -> None:
        """Bring the table up to date and keep the weights if this epoch is the best or asked for.

        A checkpoint of before is told before this epoch is.
        """
        self.settle()
        row = rows[-1]
        self.table(rows)
        if row.best:
            self.weights("best.pt", ema, row)
        if self._save_period and row.epoch % self._save_period == 0:
            self.announce(self.weights(f"epoch{row.epoch}.pt", ema, row))

    def table(self, rows: Sequence[EpochDone]) -> Written:
        """Write results.csv."""
        return publish(self.artifacts / "results.csv", results_csv(rows).encode(), durable=False)

    def weights(self, name: str, tensors: Tensors, row: EpochDone | None) -> Written:
        """Write weights in half precision with their card, readable with `weights_only=True`."""
        content = {
            "format": FORMAT,
            "model": halved(tensors),
            "metrics": json.dumps(row.model_dump(mode="json")) if row else None,
            **asdict(self.card),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return publish(self.artifacts / name, buffer.getbuffer())

    def announce(self, written: Written) -> ArtifactSaved:
        """Tell of an artifact that lies complete in its folder."""
        suffix = written.path.suffix
        event = ArtifactSaved(
            name=written.path.name,
            path=str(written.path.relative_to(self.folder)),
            sha256=written.sha256,
            size_bytes=written.size_bytes,
            media_type=MEDIA_TYPES.get(suffix, "application/octet-stream"),
            kind=KINDS.get(suffix, "report"),
        )
        self._emit(event)
        return event

    def announce_file(self, path: Path) -> ArtifactSaved:
        """Tell of an artifact that somebody else has written."""
        return self.announce(describe(path))
