"""Where tests find data that is not part of the project, and what happens where it is absent.

A test that needs such a folder calls one of these: it skips with a reason, unless TRAINSHED_REQUIRE names
`shared`, which turns the skip into a failure (CI sets it).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def required(service: str) -> bool:
    """Tell whether TRAINSHED_REQUIRE (comma-separated) names the service."""
    return service in os.environ.get("TRAINSHED_REQUIRE", "").split(",")


def missing(service: str, reason: str) -> None:
    """Skip the calling test, or fail it where the service is required."""
    if required(service):
        pytest.fail(f"required but absent: {reason}")
    pytest.skip(reason)


def folder(variable: str, default: str) -> Path | None:
    """Return the folder an environment variable names, or its default beside the project; None if absent."""
    path = Path(os.environ.get(variable) or ROOT.parent / "shared" / default)
    return path if path.is_dir() else None


def _required_folder(variable: str, default: str) -> Path:
    path = folder(variable, default)
    if path is None:
        missing("shared", f"{variable} is not set and shared/{default} is absent")
        raise AssertionError
    return path


def golden_dir() -> Path:
    """Folder of golden numbers."""
    return _required_folder("TRAINSHED_GOLDEN", "golden")


def intake_dir() -> Path:
    """Folder of good and bad uploads."""
    return _required_folder("TRAINSHED_INTAKE", "intake")


def datasets_dir() -> Path:
    """Folder of real photographs."""
    return _required_folder("TRAINSHED_DATASETS", "datasets")


def weights_dir() -> Path:
    """Folder of published checkpoints."""
    return _required_folder("TRAINSHED_WEIGHTS", "weights")
