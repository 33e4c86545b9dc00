"""What a run told, as rows: epochs, the figures a job shows, artifacts.

Functions of a connection, called only after the fence of `runs`. Which epochs still count is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import tables as t
from api.domain.records import Artifact, EpochRow
from api.domain.store import insert_or_ignore

BEST_WEIGHTS: Final = "best.pt"
BEST_FIELDS: Final = ("epoch", "precision", "recall", "map50", "map50_95", "fitness")


def best_of(epoch: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job shows as its best, out of an epoch's figures."""
    figures = {**values, "epoch": epoch}
    return {name: figures[name] for name in BEST_FIELDS if name in figures}


def put_epochs(conn: Connection, row: RowMapping, epochs: Sequence[EpochRow], *, now: float) -> RowMapping:
    """Write epoch rows of the fenced attempt, and the figures the job shows; return the row after it.

    An epoch that an earlier attempt told and that still counts is left alone: so rows out of a checkpoint's
    history fill gaps and change nothing else.
    """
    if not epochs:
        return row
    table, job_id, attempt = t.epoch_metrics, row["id"], row["attempt"]
    same = sa.and_(table.c.job_id == job_id, table.c.epoch.in_([epoch.epoch for epoch in epochs]))
    counted = sa.select(table.c.epoch).where(
        same, table.c.attempt < attempt, table.c.superseded == sa.false()
    )
    told = set(conn.execute(counted).scalars())
    new = {epoch.epoch: epoch for epoch in epochs if epoch.epoch not in told}
    if not new:
        return row
    conn.execute(sa.delete(table).where(same, table.c.attempt == attempt))
    conn.execute(
        sa.insert(table),
        [
            {
                "job_id": job_id,
                "attempt": attempt,
                "epoch": epoch.epoch,
                "superseded": False,
                "event_id": epoch.event_id,
                "values": dict(epoch.values),
                "recorded_at": epoch.recorded_at or now,
            }
            for epoch in new.values()
        ],
    )
    return _show_epochs(conn, row, new)


def _show_epochs(conn: Connection, row: RowMapping, new: Mapping[int, EpochRow]) -> RowMapping:
    values: dict[str, Any] = {}
    last = max(new)
    if row["metrics"] is None or last >= row["metrics"]["epoch"]:
        values["metrics"] = {**new[last].values, "epoch": last}
    best = [epoch for epoch in new if new[epoch].values.get("best")]
    if best and (row["best"] is None or max(best) >= row["best"].get("epoch", -1)):
        values["best"] = best_of(max(best), new[max(best)].values)
    return _show(conn, row, values)


def start_from_pointer(conn: Connection, row: RowMapping, pointer: Mapping[str, Any] | None) -> RowMapping:
    """Supersede the epochs an attempt will run again, and show the figures as they were at the pointer."""
    table = t.epoch_metrics
    counts = (table.c.job_id == row["id"], table.c.superseded == sa.false())
    first = pointer["epoch"] if pointer else 0
    conn.execute(sa.update(table).where(*counts, table.c.epoch >= first).values(superseded=True))
    last = conn.execute(
        sa.select(table.c.epoch, table.c["values"]).where(*counts).order_by(table.c.epoch.desc()).limit(1)
    ).one_or_none()
    values = {
        "best": pointer["best"] if pointer else None,
        "metrics": {**last[1], "epoch": last[0]} if last is not None else None,
    }
    return _show(conn, row, values)


def _show(conn: Connection, row: RowMapping, values: Mapping[str, Any]) -> RowMapping:
    if not values:
        return row
    statement = sa.update(t.jobs).where(t.jobs.c.id == row["id"]).values(**values).returning(t.jobs)
    return conn.execute(statement).mappings().one()


def put_artifacts(
    conn: Connection, job_id: str, attempt: int, artifacts: Sequence[Artifact], *, now: float
) -> None:
    """Name stored blobs as files of the fenced attempt; a name given again is replaced."""
    table = t.artifacts
    for artifact in artifacts:
        blob = {"sha256": artifact.sha256, "size_bytes": artifact.size_bytes, "created_at": now}
        insert_or_ignore(conn, t.blobs, blob)
        same = (table.c.job_id == job_id, table.c.attempt == attempt, table.c.name == artifact.name)
        conn.execute(sa.delete(table).where(*same))
        values = {**artifact.__dict__, "attempt": attempt, "created_at": artifact.created_at or now}
        conn.execute(sa.insert(table).values(job_id=job_id, **values))


def has_best(row: RowMapping) -> bool:
    """Tell whether the checkpoint a job goes on from holds a best epoch."""
    return bool(row["pointer"] and row["pointer"].get("best"))


def has_weights(conn: Connection, row: RowMapping) -> bool:
    """Tell whether the weights of a job's best are stored, since its pointer moved for the last time.

    Those of every N-th epoch have other names, and an attempt that went on after an export made it stale.
    """
    pointer, table = row["pointer"], t.artifacts
    if not pointer:
        return False
    same = (table.c.job_id == row["id"], table.c.name == BEST_WEIGHTS, table.c.kind == "weights")
    query = sa.select(sa.exists().where(*same, table.c.attempt >= pointer["attempt"]))
    return bool(conn.execute(query).scalar_one())
