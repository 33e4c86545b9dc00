"""Reads a job's configuration from a file and `--set key=value`; only the service knows what it means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from api.cli.session import EXIT_USAGE, fail


def read_config(path: Path | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return the configuration; later settings win. Exits with a usage error for what is no mapping."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            # JSON is a subset of YAML, so one reader serves both.
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            fail(f"{path}: {error}", EXIT_USAGE)
        if not isinstance(found, dict):
            fail(f"{path}: a configuration is a mapping", EXIT_USAGE)
        values = found
    for setting in settings:
        _apply(values, setting)
    return values


def _apply(values: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    keys = name.split(".")
    if not equals or not all(keys):
        fail(f"--set {setting}: write key=value", EXIT_USAGE)
    target = values
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            fail(f"--set {setting}: {key} is no group", EXIT_USAGE)
    target[keys[-1]] = _value(text)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
