"""How long a run would take, from a few batches that a worker has timed: multiplied, and said so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from api.cli.jobtext import duration
from api.client import Client, ClientError, Probe
from api.client.patience import deadline_in, time_left

WITHIN_S = 120.0
_ASK_EVERY_S = 0.3
_MIB = 1 << 20
# A picture of validation goes forward only; backward takes about twice as long as forward.
VAL_SHARE = 1 / 3
ASSUMPTION = (
    "median of the timed batches x batches x epochs, and a third of a batch's time for as many pictures of "
    "validation; without start, export and queue"
)


def timed(
    client: Client, told: Mapping[str, Any], request: Mapping[str, Any], deadline: float | None
) -> dict[str, Any]:
    """Have a worker time a job that was checked; return figures and estimate, or `why` there are none."""
    if not told["workers"]:
        return {"why": f"no worker of {told['queue']} lives"}
    end = deadline if deadline is not None else deadline_in(WITHIN_S)
    probe = client.probe_job(request)
    try:
        while not probe.is_final and time_left(end) > 0:
            time.sleep(max(0.0, min(_ASK_EVERY_S, time_left(end))))
            probe = client.probe(probe.id)
    finally:
        if not probe.is_final:
            with suppress(ClientError):
                client.cancel_probe(probe.id)
    return estimate(told, probe)


def estimate(told: Mapping[str, Any], probe: Probe) -> dict[str, Any]:
    """Return what a probe says of a job: seconds a batch, an epoch and in all, or `why` it says nothing."""
    result = probe.result or {}
    batch_s = result.get("batch_s")
    if not isinstance(batch_s, int | float):
        return {"why": _why_not(probe), "probe": result or None}
    pictures = told["dataset"]["splits"]
    batches = told["batches_per_epoch"]
    if batches is None:
        batches = -(-pictures.get("train", 0) // result["batch"])
    train_s = batches * batch_s
    val_s = pictures.get("val", 0) * VAL_SHARE * batch_s / result["batch"]
    return {
        "probe": result,
        "batch_s": batch_s,
        "epoch_s": train_s + val_s,
        "total_s": told["epochs"] * (train_s + val_s),
        "assumption": ASSUMPTION,
    }


def _why_not(probe: Probe) -> str:
    for found in (probe.result, probe.error):
        if found and found.get("code"):
            return f"{found['code']}: {found.get('message')}"
    if probe.status == "queued":
        return "no worker was free in time"
    return "no batch was timed in time" if not probe.is_final else f"the probe {probe.status}"


def time_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what a person is told of how long it would take."""
    if found.get("why"):
        return [f"time     not known: {found['why']}"]
    probe = found["probe"]
    made = "  simulated" if probe.get("simulated") else ""
    peak = f"  {probe['peak_bytes'] / _MIB:.0f} MiB at most" if probe.get("peak_bytes") else ""
    return [
        f"time     {found['batch_s']:.3g} s a batch of {probe['batch']}, {probe['images_per_s']:.3g} images/s"
        f"{peak}  {probe['num_batches']} batches timed{made}",
        f"  about {duration(found['epoch_s'])} an epoch, {duration(found['total_s'])} in all",
        f"  ({found['assumption']})",
    ]
