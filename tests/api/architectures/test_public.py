"""The public model files over HTTP: listed by name, accepted like any other text, none that cannot train."""

from __future__ import annotations

import httpx


def test_public_files_are_listed_and_accepted(untouched: httpx.Client) -> None:
    items = {item["name"]: item["text"] for item in untouched.get("/v1/architectures/public").json()["items"]}
    assert {"yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x", "hub/yolov5-p2"} <= items.keys()
    assert not any(name.startswith("segment/") for name in items)
    for name in ("yolov5n", "hub/yolov3-tiny"):
        plan = untouched.post(
            "/v1/architectures/check", content=items[name], headers={"Content-Type": "application/yaml"}
        )
        assert plan.status_code == 200, plan.text
        assert plan.json()["num_classes"] == 80
