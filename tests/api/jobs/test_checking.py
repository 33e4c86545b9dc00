"""What a job would be is told without queueing it, and what is refused is refused in the same words."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.jobs.checking import memory_needed, num_batches
from tests.support.service import World, a_dataset, a_job, an_architecture, model_text
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.config import parse_config
from yolocore.spec.memory import memory_of
from yolocore.spec.plan import plan_architecture


def test_what_would_be_queued_is_told_and_not_queued(world: World, client: httpx.Client) -> None:
    job = a_job(world, client, config={"epochs": 3, "batch": 2})
    body = {"dataset": job["dataset"], "architecture": job["architecture"]}
    told = client.post("/v1/jobs/check", json={**body, "config": {"epochs": 3, "batch": 2}})
    assert told.status_code == 200, told.text
    found = told.json()
    assert (found["fingerprint"], found["config"]) == (job["fingerprint"], job["config"])
    assert found["identical"] == {"id": job["id"], "name": job["name"], "status": "queued"}
    assert (found["epochs"], found["batches_per_epoch"], found["val_batches_per_epoch"]) == (3, 1, 1)
    assert found["architecture"]["num_classes"] == found["dataset"]["num_classes"] == 2
    assert [warning["code"] for warning in found["architecture"]["warnings"]] == ["CLASSES_DIFFER"]
    assert (found["queue"], found["workers"]) == ("train.cpu", 0)
    other = client.post("/v1/jobs/check", json={**body, "config": {"epochs": 4, "batch": -1}}).json()
    assert (other["identical"], other["batches_per_epoch"], other["memory"]["batch"]) == (None, None, 1)
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_what_is_refused_is_refused_in_the_same_words(world: World, client: httpx.Client) -> None:
    body: dict[str, Any] = {"dataset": a_dataset(world, client), "architecture": an_architecture(client)}
    for wrong in ({"config": {"epochs": -1}}, {"dataset": "ds_none"}, {"weights": "none"}, {"x": 1}):
        refused = [client.post(url, json={**body, **wrong}) for url in ("/v1/jobs", "/v1/jobs/check")]
        assert refused[0].status_code == refused[1].status_code == 422
        first, second = ({**answer.json(), "instance": None} for answer in refused)
        assert first == second


@pytest.mark.parametrize(
    ("pictures", "config", "training", "expected"),
    [
        (10, {"batch": 4}, True, 3),
        (10, {"batch": 4, "quad": True}, True, 2),
        (10, {"batch": 4}, False, 2),
        (10, {"batch": 4, "val": {"batch": 1}}, False, 10),
        (0, {"batch": 4}, False, 0),
        (None, {"batch": 4}, True, None),
        (10, {"batch": -1}, True, None),
    ],
)
def test_batches_are_counted(
    pictures: int | None, config: dict[str, Any], training: bool, expected: int | None
) -> None:
    assert num_batches(pictures, parse_config(config), training=training) == expected


def test_memory_grows_with_the_batch_and_the_optimizer() -> None:
    plan = plan_architecture(parse_architecture(model_text(2), source="n"), num_classes=2, imgsz=(64, 64))
    small = memory_needed(plan, parse_config({"batch": 2}))
    large = memory_needed(plan, parse_config({"batch": 4, "optimizer": "Adam"}))
    assert small.maps_bytes == memory_of(plan, 2).training_bytes and large.maps_bytes == 2 * small.maps_bytes
    assert (small.weights_bytes, large.weights_bytes) == (16 * plan.num_parameters, 20 * plan.num_parameters)
