"""The studio over HTTP: figures for a batch and a dataset, places of mistakes, differences between two."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.service import World, a_dataset, an_architecture, model_text
from yolocore.spec.zoo import zoo_text

CHECK = "/v1/architectures/check"
BAD_JOIN = """\
nc: 2
anchors: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[-1, 0], 1, Concat, [1]]
  - [[-1], 1, Detect, [nc, anchors]]
"""


def check(client: httpx.Client, text: str, **params: Any) -> dict[str, Any]:
    answer = client.post(CHECK, params=params, content=text)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_text_is_told_in_full(untouched: httpx.Client) -> None:
    one, many = check(untouched, model_text()), check(untouched, model_text(), batch=16, imgsz=320)
    assert (one["imgsz"], many["imgsz"]) == ([640, 640], [320, 320])
    assert many["memory"]["training_bytes"] == 4 * one["memory"]["training_bytes"]
    layer = one["layers"][13]
    assert (layer["from"], layer["module"], layer["stride"]) == (-1, "C3", 16)
    assert layer["out_shapes"] == [[128, 40, 40]]
    assert layer["receptive_fields_px"] == [[682, 682]]
    assert one["layers"][-1]["receptive_fields_px"] == [[698, 698], [746, 746], [842, 842]]
    skips = [(edge["source"], edge["target"]) for edge in one["graph"]["edges"] if edge["skip"]]
    assert skips == [(6, 12), (4, 16), (14, 19), (10, 22), (17, 24), (20, 24)]


def test_a_mistake_is_told_in_words_with_line_and_column(untouched: httpx.Client) -> None:
    answer = untouched.post(CHECK, content=BAD_JOIN)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    (error,) = answer.json()["errors"]
    assert (error["code"], error["line"], error["column"], error["row"]) == ("SIZE_MISMATCH", 7, 11, 2)
    assert "row 2 Concat joins 160\u00d7160 from row 1 with 320\u00d7320 from row 0" in error["message"]


@pytest.mark.parametrize("params", [{"batch": 0}, {"batch": 10**6}, {"imgsz": 8}, {"dataset": "x" * 100}])
def test_figures_out_of_bounds_are_refused(untouched: httpx.Client, params: dict[str, Any]) -> None:
    answer = untouched.post(CHECK, params=params, content=model_text())
    assert (answer.status_code, answer.json()["code"]) == (422, "REQUEST_INVALID")


def test_a_dataset_gives_its_classes_and_is_needed_ready(world: World, client: httpx.Client) -> None:
    dataset = a_dataset(world, client, ready=False)
    early = client.post(CHECK, params={"dataset": dataset}, content=model_text())
    assert (early.status_code, early.json()["code"]) == (409, "DATASET_NOT_READY")
    world.ingest(dataset)
    found = check(client, model_text(), dataset=dataset)
    assert found["num_classes"] == 2
    (warning,) = found["warnings"]
    assert (warning["code"], warning["line"], warning["column"]) == ("CLASSES_DIFFER", 1, 1)
    kept = client.get(
        f"/v1/architectures/{an_architecture(client)}/plan", params={"dataset": dataset, "batch": 4}
    )
    assert kept.json()["warnings"] == found["warnings"]
    assert kept.json()["memory"]["batch"] == 4
    stranger = client.post(
        CHECK, params={"dataset": dataset}, content=model_text(), headers=world.other_user()
    )
    assert (stranger.status_code, stranger.json()["code"]) == (404, "DATASET_NOT_FOUND")


def test_two_architectures_are_compared(world: World, client: httpx.Client) -> None:
    kept = an_architecture(client)
    other = an_architecture(client, "bifpn", zoo_text("hub/yolov5-bifpn"))
    url = f"/v1/architectures/{kept}/diff"
    found = client.get(url, params={"other": other}).json()
    assert (found["left"], found["right"]) == ("yolov5n", "bifpn")
    assert [key["name"] for key in found["keys"]] == ["depth_multiple", "width_multiple"]
    changed = [row for row in found["rows"] if row["change"] != "same"]
    assert [row["details"] for row in changed] == [
        [{"name": "from", "left": "[-1, 14]", "right": "[-1, 14, 6]"}]
    ]
    assert (found["num_changed"], found["num_added"], found["num_removed"]) == (1, 0, 0)
    assert client.get(url).json()["right"] == "yolov5s"
    assert client.get(url, params={"other": "hub/yolov5-p2"}).json()["num_added"] > 0
    text = client.post(url, content=model_text().replace("SPPF, [1024, 5]", "SPPF, [1024, 3]")).json()
    assert text["right"] == "model.yaml"
    assert [row["left"] for row in text["rows"] if row["change"] == "changed"] == [9]
    assert client.post(url, content=BAD_JOIN).json()["errors"][0]["line"] == 7
    for missing in ("arch_none", "yolov99"):
        refused = client.get(url, params={"other": missing})
        assert (refused.status_code, refused.json()["code"]) == (404, "ARCHITECTURE_NOT_FOUND")
