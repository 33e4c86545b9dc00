"""What an ingest may consume, and the process limits that enforce it.

Kept apart so that a hostile archive meets numbers in one place. It knows nothing of archives.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Bounds of one ingest; sizes in bytes, times in seconds."""

    max_total_bytes: int = 64 << 30
    max_entries: int = 400_000
    max_ratio: int = 200
    ratio_free_bytes: int = 16 << 20
    max_text_bytes: int = 8 << 20
    max_texts_bytes: int = 1 << 30
    max_annotations_bytes: int = 256 << 20
    max_image_bytes: int = 1 << 30
    max_image_pixels: int = 178_000_000
    max_path_bytes: int = 1024
    max_path_depth: int = 32
    max_classes: int = 10_000
    min_image_side: int = 10
    memory_bytes: int = 6 << 30
    cpu_seconds: int = 4 * 3600
    threads: int = 2

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Limits:
        """Build limits from a task's plain numbers; raise ValueError for an unknown or non-positive one."""
        known = {field.name for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"unknown limit {name!r}")
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"limit {name} must be a positive whole number, found {value!r}")
        return cls(**values)


def enforce(limits: Limits) -> None:
    """Bound memory, processor time and core dumps of this process for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_AS, limits.memory_bytes)
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or value < hard:
        resource.setrlimit(kind, (value, value))
