"""Events as lines for a person: the terminal of the stand-alone core, and the log of a job.

Epochs count from 1 here, as people do. It must not know where the lines go.
"""

from __future__ import annotations

from yolocore.spec.events import (
    ArtifactSaved,
    BatchDone,
    CheckpointSaved,
    EpochDone,
    Log,
    LossParts,
    PhaseChange,
    Resume,
    Start,
    System,
    TrainEvent,
    Warned,
)


def line_of(event: TrainEvent) -> str | None:
    """Return one line for an event, None for those that come too often to be read."""
    if isinstance(event, BatchDone | System | CheckpointSaved | PhaseChange):
        return None
    if isinstance(event, EpochDone):
        return epoch_line(event)
    if isinstance(event, Start):
        return start_line(event)
    if isinstance(event, Resume):
        return f"continuing at epoch {event.epoch + 1}, batch {event.batch + 1}"
    if isinstance(event, ArtifactSaved):
        return f"wrote {event.path} ({event.size_bytes:,} bytes)"
    return f"warning {event.code}: {event.message}" if isinstance(event, Warned) else _log_line(event)


def epoch_line(event: EpochDone) -> str:
    """Return the line of a finished epoch."""
    star = " *" if event.best else ""
    val = "" if event.val is None else f"  val {_losses(event.val)}"
    return (
        f"epoch {event.epoch + 1}/{event.epochs}  train {_losses(event.train)}{val}  "
        f"P {event.precision:.3f} R {event.recall:.3f} "
        f"mAP50 {event.map50:.3f} mAP50-95 {event.map50_95:.3f}  {event.seconds:.1f} s{star}"
    )


def start_line(event: Start) -> str:
    """Return the line that says what was resolved."""
    return (
        f"training {event.num_parameters:,} parameters on {event.num_train_images} images "
        f"({event.num_val_images} to validate, {len(event.classes)} classes), {event.imgsz} px, "
        f"batch {event.batch} of nominal {event.nominal_batch}, {event.device} {event.precision}, "
        f"{event.threads} threads"
    )


def _losses(parts: LossParts) -> str:
    return " ".join("nan" if value is None else f"{value:.4f}" for value in (parts.box, parts.obj, parts.cls))


def _log_line(event: Log) -> str:
    return event.message if event.level == "info" else f"{event.level}: {event.message}"
