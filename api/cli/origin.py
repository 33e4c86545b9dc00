"""Where a run comes from: the commit that a pipeline builds, and the key that makes its submission one job.

It knows environment variables and git, and nothing of the service.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# GitHub, GitLab, CircleCI, Azure, Jenkins, Bitbucket, Buildkite, Travis, Woodpecker and Drone.
_COMMIT_VARIABLES = (
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "CIRCLE_SHA1",
    "BUILD_SOURCEVERSION",
    "GIT_COMMIT",
    "BITBUCKET_COMMIT",
    "BUILDKITE_COMMIT",
    "TRAVIS_COMMIT",
    "DRONE_COMMIT_SHA",
)
_GIT_WITHIN_S = 10


def find_commit(folder: Path, environment: Mapping[str, str]) -> str | None:
    """Return the commit a pipeline says it builds, else HEAD of the git checkout around a folder."""
    for name in _COMMIT_VARIABLES:
        if environment.get(name, "").strip():
            return environment[name].strip()
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_GIT_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def content_hash(dataset_hash: str, architecture_hash: str, request: Mapping[str, Any]) -> str:
    """Return the digest (hex) of what is asked for: data, architecture, configuration, weights.

    The service's fingerprint stands for what it makes of that, which is not known before it is submitted.
    """
    config = {key: request.get(key) for key in ("config", "weights")}
    return _digest({"dataset": dataset_hash, "architecture": architecture_hash, **config})


def submission_key(content: str, request: Mapping[str, Any], commit: str | None) -> str:
    """Return the idempotency key of a submission: the same content of the same commit is the same job."""
    return "run-" + _digest({"content": content, "request": dict(request), "commit": commit})


def next_key(key: str, spent_on: str) -> str:
    """Return the key that follows one whose job (or what became of it) is not to be had again."""
    return "run-" + _digest({"after": key, "job": spent_on})


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
