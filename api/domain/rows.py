"""Rows to records: the one place where column values become the dataclasses the books hand out."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import RowMapping

from api.domain import records as r
from api.domain import weights_records as wr

Row = RowMapping


def job(row: Row) -> r.Job:
    """Read a row of `jobs`."""
    return r.Job(
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        tags=tuple(row["tags"]),
        config=row["config"],
        config_hash=row["config_hash"],
        dataset_id=row["dataset_id"],
        architecture_id=row["architecture_id"],
        parent_id=row["parent_id"],
        priority=row["priority"],
        status=r.JobStatus(row["status"]),
        phase=row["phase"],
        pointer=r.Pointer(**row["pointer"]) if row["pointer"] else None,
        progress=row["progress"],
        best=row["best"],
        metrics=row["metrics"],
        last_event_id=row["last_event_id"],
        max_runtime_s=row["max_runtime_s"],
        ran_s=row["ran_s"],
        simulated=row["simulated"],
        cleared_at=row["cleared_at"],
        weights_id=row["weights_id"],
        weights_sha256=row["weights_sha256"],
        fingerprint=row["fingerprint"],
        stopped=row["stopped"],
        **_leased(row),
    )


def task(row: Row) -> r.Task:
    """Read a row of `tasks`."""
    return r.Task(
        id=row["id"],
        owner=row["owner"],
        kind=row["kind"],
        subject_id=row["subject_id"],
        payload=row["payload"],
        result=row["result"],
        status=r.TaskStatus(row["status"]),
        **_leased(row),
    )


def _leased(row: Row) -> dict[str, Any]:
    names = ("queue", "attempt", "failures", "preemptions", "worker", "lease_seq", "not_before", "error")
    more = ("revision", "created_at", "started_at", "finished_at")
    wish = r.Wish(row["wish"]) if row["wish"] else None
    return {name: row[name] for name in names + more} | {"wish": wish}


def dataset(row: Row) -> r.Dataset:
    """Read a row of `datasets`."""
    same = ("id", "owner", "name", "file_name", "sha256", "size_bytes", "manifest_hash", "report_sha256")
    more = ("statistics", "splits", "num_boxes", "num_errors", "num_warnings", "error", "created_at")
    return r.Dataset(
        **{name: row[name] for name in (*same, *more, "finished_at", "options", "files")},
        status=r.DatasetStatus(row["status"]),
        classes=tuple(row["classes"]),
    )


def weights(row: Row) -> wr.Weights:
    """Read a row of `weights`."""
    same = {name: value for name, value in row.items() if name != "deleted_at"}
    return wr.Weights(**{**same, "status": wr.WeightsStatus(row["status"]), "classes": tuple(row["classes"])})


def architecture(row: Row) -> r.Architecture:
    """Read a row of `architectures`."""
    same = ("id", "owner", "name", "text", "hash", "num_parameters", "gflops", "num_classes", "summary")
    return r.Architecture(
        **{name: row[name] for name in (*same, "created_at")}, strides=tuple(row["strides"])
    )


def transition(row: Row) -> r.Transition:
    """Read a row of `job_transitions`."""
    return r.Transition(
        seq=row["seq"],
        job_id=row["job_id"],
        from_status=r.JobStatus(row["from_status"]) if row["from_status"] else None,
        to_status=r.JobStatus(row["to_status"]),
        attempt=row["attempt"],
        actor=row["actor"],
        reason=row["reason"],
        at=row["at"],
    )


def attempt(row: Row) -> r.Attempt:
    """Read a row of `job_attempts`."""
    return r.Attempt(**{**row, "gpus": tuple(row["gpus"])})


def epoch(row: Row) -> r.EpochRow:
    """Read a row of `epoch_metrics`."""
    return r.EpochRow(**{name: value for name, value in row.items() if name != "job_id"})


def artifact(row: Row) -> r.Artifact:
    """Read a row of `artifacts`."""
    return r.Artifact(**{name: value for name, value in row.items() if name != "job_id"})


def slot(row: Row) -> r.Slot:
    """Read a row of `workers`."""
    return r.Slot(**{**row, "gpus": tuple(row["gpus"])})
