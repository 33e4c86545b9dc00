"""Journal lines: every event survives the round trip, lines are flat, and NaN becomes null."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from yolocore.spec import events as ev
from yolocore.spec.events import TrainEvent, decode_line, encode_line

LOSS = ev.LossParts(box=0.1, obj=0.2, cls=0.3)
EXAMPLES: list[TrainEvent] = [
    ev.Start(
        epochs=3,
        batches_per_epoch=2,
        batch=4,
        nominal_batch=64,
        imgsz=64,
        device="cpu",
        precision="fp32",
        threads=1,
        num_train_images=8,
        num_val_images=2,
        classes=["a", "b"],
        num_parameters=5,
        config_hash="0" * 64,
    ),
    ev.Resume(epoch=1, batch=2, after="1-77"),
    ev.PhaseChange(phase="training"),
    ev.BatchDone(epoch=0, batch=1, batches=2, loss=LOSS, lr=[0.1, 0.2, 0.2], images_per_s=9.5),
    ev.EpochDone(
        epoch=0,
        epochs=3,
        train=LOSS,
        val=None,
        precision=0.5,
        recall=0.25,
        map50=0.1,
        map50_95=0.05,
        fitness=0.055,
        best=True,
        lr=[0.1, 0.2, 0.2],
        seconds=1.5,
    ),
    ev.Log(message='a "quoted" line\nwith a break'),
    ev.Warned(code="X", message="y", place="z"),
    ev.System(cpu_percent=99.0, rss_bytes=1),
    ev.CheckpointSaved(
        path="checkpoints/a.ckpt",
        sha256="f" * 64,
        size_bytes=1,
        epoch=0,
        batch=3,
        best_epoch=None,
        best_fitness=None,
        phase="train",
    ),
    ev.ArtifactSaved(
        name="best.pt",
        path="artifacts/best.pt",
        sha256="f" * 64,
        size_bytes=1,
        media_type="application/octet-stream",
        kind="weights",
    ),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_every_event_survives_the_round_trip(event: TrainEvent) -> None:
    line = encode_line(event, seq=7, ts=1700000000.25)
    assert line.endswith("\n") and line.count("\n") == 1
    flat = json.loads(line)
    assert (flat["v"], flat["seq"], flat["ts"], flat["type"]) == (1, 7, 1700000000.25, event.type)
    decoded = decode_line(line)
    assert (decoded.seq, decoded.ts, decoded.event) == (7, 1700000000.25, event)


def test_not_a_number_becomes_null() -> None:
    loss = ev.LossParts(box=float("nan"), obj=float("inf"), cls=0.0)
    event = ev.BatchDone(epoch=0, batch=0, batches=1, loss=loss, lr=[0.1], images_per_s=1.0)
    line = encode_line(event, seq=1, ts=0.0)
    assert json.loads(line)["loss"] == {"box": None, "obj": None, "cls": 0.0}
    assert decode_line(line).event == event.model_copy(
        update={"loss": ev.LossParts(box=None, obj=None, cls=0.0)}
    )


@pytest.mark.parametrize(
    "line", ["", "[]", '{"v":1,"seq":1,"ts":0,"type":"nothing"}', '{"v":1,"seq":1,"ts":0']
)
def test_what_is_no_journal_line_is_refused(line: str) -> None:
    with pytest.raises(ValidationError):
        decode_line(line)
