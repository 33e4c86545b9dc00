"""What a probe says of a whole run, and what is said where it says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from api.cli.estimate import estimate, time_lines, timed
from api.client import Client, Probe
from tests.api.client.fake_service import TOKEN, FakeService, running

TOLD: dict[str, Any] = {
    "dataset": {"splits": {"train": 100, "val": 30}},
    "batches_per_epoch": 10,
    "epochs": 5,
    "workers": 1,
    "queue": "train.cpu",
}
RESULT = {"batch": 10, "batch_s": 2.0, "images_per_s": 5.0, "num_batches": 8, "peak_bytes": 3 << 20}


def a_probe(status: str = "succeeded", **more: Any) -> Probe:
    return Probe.model_validate({"id": "task_1", "status": status, **more})


def test_batches_and_validation_are_multiplied() -> None:
    found = estimate(TOLD, a_probe(result=RESULT))
    assert found["epoch_s"] == pytest.approx(10 * 2.0 + 30 / 10 * 2.0 / 3)
    assert found["total_s"] == pytest.approx(5 * 22.0)
    assert time_lines(found)[0] == "time     2 s a batch of 10, 5 images/s  3 MiB at most  8 batches timed"
    assert time_lines(found)[1] == "  about 22 s an epoch, 1 min 50 s in all"
    largest = estimate(TOLD | {"batches_per_epoch": None}, a_probe(result=RESULT | {"batch": 30}))
    assert largest["epoch_s"] == pytest.approx(4 * 2.0 + 2.0 / 3)


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        (a_probe("queued"), "no worker was free in time"),
        (a_probe("running"), "no batch was timed in time"),
        (a_probe("cancelled"), "the probe cancelled"),
        (a_probe("failed", error={"code": "OUT_OF_MEMORY", "message": "m"}), "OUT_OF_MEMORY: m"),
        (a_probe(result={"code": "CONFIG_INVALID", "message": "no"}), "CONFIG_INVALID: no"),
        (a_probe(result=RESULT | {"batch_s": None}), "the probe succeeded"),
    ],
)
def test_why_there_is_no_figure_is_told(probe: Probe, why: str) -> None:
    assert time_lines(estimate(TOLD, probe)) == [f"time     not known: {why}"]


def test_a_probe_that_nobody_took_is_ended() -> None:
    service = FakeService()
    with running(service) as url, Client(url, TOKEN) as client:
        assert timed(client, TOLD | {"workers": 0}, {}, None) == {"why": "no worker of train.cpu lives"}
        assert timed(client, TOLD, {}, 0.0)["why"] == "no worker was free in time"
    assert len(service.asked("DELETE", "/v1/probes/task_1")) == 1
