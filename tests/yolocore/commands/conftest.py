"""One tiny finished run, whose weights the commands start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import Told, do_run, request
from tests.support.shapes import write_shapes


class Finished:
    """A run that ended: its data, its folder, what it told."""

    def __init__(self, data_yaml: Path, folder: Path, told: Told) -> None:
        self.data_yaml = data_yaml
        self.folder = folder
        self.told = told
        self.best = folder / "artifacts" / "best.pt"

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of metrics.json."""
        values: dict[str, Any] = json.loads((self.folder / "artifacts" / "metrics.json").read_text())
        return values


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    home = tmp_path_factory.mktemp("finished")
    data_yaml = write_shapes(home / "data", num_train=8, num_val=6, side=72)
    settings = {"epochs": 5, "batch": 4, "nominal_batch": 4, "hyp": {"mosaic": 0.0, "lr0": 0.03}}
    told = do_run(request(home / "run", data_yaml, val={"max_det": 60, "iou_thres": 0.5}, **settings))
    return Finished(data_yaml, home / "run", told)
