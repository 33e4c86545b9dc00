"""Frozen pictures of the rows of weights; as `records`, beside which they have no room."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from api.domain.records import Json


class WeightsStatus(StrEnum):
    """States of weights; `failed` blames the service."""

    IMPORTING = "importing"
    READY = "ready"
    INVALID = "invalid"
    FAILED = "failed"


@dataclass(frozen=True)
class Weights:
    """Imported weights: `sha256` and `size_bytes` of what was sent, `stored_*` of what was written of it.

    `architecture_hash` is the sha256 of the model YAML the file carries, if it does; `error` blames the
    service.
    """

    id: str
    owner: str
    name: str
    status: WeightsStatus
    file_name: str
    sha256: str
    size_bytes: int
    stored_sha256: str | None
    stored_bytes: int | None
    report_sha256: str | None
    architecture_hash: str | None
    num_classes: int | None
    classes: tuple[str, ...]
    num_tensors: int
    num_parameters: int
    num_errors: int
    num_warnings: int
    provenance: Json | None
    error: Json | None
    revision: int
    created_at: float
    finished_at: float | None


@dataclass(frozen=True)
class WeighingResult:
    """The verdict on a file of weights, with digests of stored blobs; a `stored` file exactly if ready."""

    status: WeightsStatus
    report_sha256: str
    stored_sha256: str | None = None
    stored_bytes: int | None = None
    architecture_hash: str | None = None
    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    num_tensors: int = 0
    num_parameters: int = 0
    num_errors: int = 0
    num_warnings: int = 0
    provenance: Json | None = None
