"""Runs that must fail, and what they may leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.runs import do_run
from yolocore.errors import CoreError
from yolocore.spec.events import TrainEvent
from yolocore.train.checkpoint import load_checkpoint
from yolocore.train.request import RunRequest


def failure(
    asked: RunRequest, watch: Callable[[TrainEvent], None] | None = None, **settings: Any
) -> CoreError:
    """Do a run that must fail, and return how; what it leaves is whole and can be read."""
    with pytest.raises(CoreError) as caught:
        do_run(asked, watch=watch, **settings)
    error = caught.value
    assert type(error) is not CoreError and error.message and error.place, error
    for path in (path for path in asked.folder.rglob("*") if path.is_file()):
        if path.suffix == ".ckpt":
            load_checkpoint(path)
        assert path.suffix in (".ckpt", ".csv") or torch.load(path, weights_only=True)
    return error
