"""What a run tells while it goes: a closed union of events and the journal line that carries one.

The trainer writes them, the worker ships them, the API streams them, the dashboard draws them. Epochs and
batches count from 0. It must not know files, queues or Redis.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

JOURNAL_VERSION = 1

Phase = Literal["preparing", "training", "validating", "exporting", "uploading", "stopping"]
ArtifactKind = Literal["weights", "plot", "table", "report"]
Number = float | None
"""A measured number; None where it was NaN or infinite, which JSON cannot say."""


class EventModel(BaseModel):
    """Common rules: immutable, no unknown keys; NaN and infinity become null in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class LossParts(EventModel):
    """The three terms of the detection loss, each a mean."""

    box: Number
    obj: Number
    cls: Number


class Start(EventModel):
    """The first event of a first attempt, once everything is resolved."""

    type: Literal["start"] = "start"
    epochs: int
    batches_per_epoch: int
    batch: int
    nominal_batch: int
    imgsz: int
    device: str
    precision: str
    threads: int
    num_train_images: int
    num_val_images: int
    classes: list[str]
    num_parameters: int
    config_hash: str
    simulated: bool = False


class Resume(EventModel):
    """The first event of an attempt that continues: from where, and the last earlier event id that counts."""

    type: Literal["resume"] = "resume"
    epoch: int
    batch: int
    after: str | None = None
    simulated: bool = False


class PhaseChange(EventModel):
    """What the run does now, for display."""

    type: Literal["phase"] = "phase"
    phase: Phase


class BatchDone(EventModel):
    """Means over the batches since the last such event; `batch` is the last of them."""

    type: Literal["batch"] = "batch"
    epoch: int
    batch: int
    batches: int
    loss: LossParts
    lr: list[float]
    images_per_s: float
    gpu_memory_bytes: int | None = None
    amp_scale: Number = None


class EpochDone(EventModel):
    """The row of one finished epoch; `lr` in the order biases, decayed weights, norm weights."""

    type: Literal["epoch"] = "epoch"
    epoch: int
    epochs: int
    train: LossParts
    val: LossParts | None
    precision: float
    recall: float
    map50: float
    map50_95: float
    fitness: float
    best: bool
    lr: list[float]
    seconds: float


class Log(EventModel):
    """A line for a person."""

    type: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: str


class Warned(EventModel):
    """Something a person should know about, with a stable code."""

    type: Literal["warning"] = "warning"
    code: str
    message: str
    place: str | None = None


class System(EventModel):
    """Load of the training process, every ten seconds."""

    type: Literal["system"] = "system"
    cpu_percent: float
    rss_bytes: int
    gpu_memory_bytes: int | None = None


class CheckpointSaved(EventModel):
    """A checkpoint lies complete on disk; it continues at `epoch`, `batch`."""

    type: Literal["checkpoint"] = "checkpoint"
    path: str
    sha256: str
    size_bytes: int
    epoch: int
    batch: int
    best_epoch: int | None
    best_fitness: float | None
    phase: Literal["train", "validate"]


class ArtifactSaved(EventModel):
    """A result file lies complete on disk; a later event of the same name replaces it."""

    type: Literal["artifact"] = "artifact"
    name: str
    path: str
    sha256: str
    size_bytes: int
    media_type: str
    kind: ArtifactKind


TrainEvent = Annotated[
    Start
    | Resume
    | PhaseChange
    | BatchDone
    | EpochDone
    | Log
    | Warned
    | System
    | CheckpointSaved
    | ArtifactSaved,
    Field(discriminator="type"),
]

EVENTS: TypeAdapter[TrainEvent] = TypeAdapter(TrainEvent)


class JournalLine(EventModel):
    """One line of the journal: `seq` counts from 1 without gaps in each attempt, `ts` is Unix time."""

    seq: int = Field(ge=1)
    ts: float
    event: TrainEvent


def encode_line(event: TrainEvent, *, seq: int, ts: float) -> str:
    """Return the journal line of an event, flat JSON with a newline at its end."""
    payload = event.model_dump_json()
    return f'{{"v":{JOURNAL_VERSION},"seq":{seq},"ts":{ts!r},{payload[1:]}\n'


def decode_line(line: str | bytes) -> JournalLine:
    """Read one journal line back; raises pydantic.ValidationError if it is not one."""
    flat = _OBJECT.validate_json(line)
    flat.pop("v", None)
    seq, ts = flat.pop("seq", None), flat.pop("ts", None)
    return JournalLine.model_validate({"seq": seq, "ts": ts, "event": flat})


_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
