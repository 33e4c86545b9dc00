"""The tables of the book, as SQLAlchemy Core. The migrations make them; a test compares the two.

Times are seconds since 1970 (UTC). JSON columns hold whole values that are written and read together; what is
filtered or sorted by has a column of its own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from api.domain.records import DatasetStatus, JobStatus, TaskStatus, Wish
from api.domain.weights_records import WeightsStatus

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

JSON = sa.JSON(none_as_null=True)


def _one_of(column: str, values: type[StrEnum], *, nullable: bool = False) -> CheckConstraint:
    names = ", ".join(f"'{value.value}'" for value in values)
    test = f"{column} IN ({names})"
    return CheckConstraint(f"{column} IS NULL OR {test}" if nullable else test, name=column)


def _int(name: str, **more: Any) -> Column[int]:
    return Column(name, Integer, nullable=False, default=0, server_default="0", **more)


def _big(name: str) -> Column[int]:
    return Column(name, sa.BigInteger, nullable=False)


def _leased() -> list[Column[Any]]:
    """Columns of whatever is claimed, fenced and reaped; `leasing` relies on exactly these."""
    return [
        Column("queue", String(40), nullable=False),
        Column("status", String(16), nullable=False),
        _int("attempt"),
        _int("failures"),
        _int("preemptions"),
        Column("worker", String(120)),
        _int("lease_seq"),
        Column("wish", String(16)),
        Column("not_before", Float(53)),
        Column("error", JSON),
        _int("revision"),
        Column("created_at", Float(53), nullable=False),
        Column("started_at", Float(53)),
        Column("finished_at", Float(53)),
    ]


principals = Table(
    "principals",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("created_at", Float(53), nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("principal_id", ForeignKey("principals.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("label", String(80), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53)),
    Column("last_used_at", Float(53)),
    Column("revoked_at", Float(53)),
    CheckConstraint("kind IN ('bearer', 'session', 'once')", name="kind"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    _big("size_bytes"),
    Column("created_at", Float(53), nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("owner", String(48), nullable=False),
    Column("name", String(120), nullable=False),
    Column("status", String(16), nullable=False),
    Column("file_name", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    _big("size_bytes"),
    Column("manifest_hash", String(64)),
    Column("report_sha256", String(64)),
    Column("statistics", JSON),
    Column("classes", JSON, nullable=False),
    Column("splits", JSON, nullable=False),
    _int("num_boxes"),
    _int("num_errors"),
    _int("num_warnings"),
    Column("error", JSON),
    Column("created_at", Float(53), nullable=False),
    Column("finished_at", Float(53)),
    Column("deleted_at", Float(53)),
    Column("options", JSON),
    Column("files", JSON),
    _one_of("status", DatasetStatus),
)
Index(
    "uq_datasets_owner_name_live",
    datasets.c.owner,
    datasets.c.name,
    unique=True,
    sqlite_where=datasets.c.deleted_at.is_(None),
    postgresql_where=datasets.c.deleted_at.is_(None),
)

weights = Table(
    "weights",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("owner", String(48), nullable=False),
    Column("name", String(120), nullable=False),
    Column("status", String(16), nullable=False),
    Column("file_name", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    _big("size_bytes"),
    Column("stored_sha256", String(64)),
    Column("stored_bytes", sa.BigInteger),
    Column("report_sha256", String(64)),
    Column("architecture_hash", String(64)),
    Column("num_classes", Integer),
    Column("classes", JSON, nullable=False),
    _int("num_tensors"),
    Column("num_parameters", sa.BigInteger, nullable=False, default=0, server_default="0"),
    _int("num_errors"),
    _int("num_warnings"),
    Column("provenance", JSON),
    Column("error", JSON),
    _int("revision"),
    Column("created_at", Float(53), nullable=False),
    Column("finished_at", Float(53)),
    Column("deleted_at", Float(53)),
    _one_of("status", WeightsStatus),
)
Index(
    "uq_weights_owner_name_live",
    weights.c.owner,
    weights.c.name,
    unique=True,
    sqlite_where=weights.c.deleted_at.is_(None),
    postgresql_where=weights.c.deleted_at.is_(None),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("owner", String(48), nullable=False),
    Column("metadata", JSON, nullable=False),
    _big("size_bytes"),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=False, index=True),
    Column("sha256", String(64), index=True),
    Column("finished_at", Float(53)),
)
Index("ix_uploads_owner_id", uploads.c.owner, uploads.c.id)

architectures = Table(
    "architectures",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("owner", String(48), nullable=False),
    Column("name", String(120), nullable=False),
    Column("text", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    _big("num_parameters"),
    Column("gflops", Float(53)),
    Column("strides", JSON, nullable=False),
    Column("num_classes", Integer),
    Column("summary", JSON, nullable=False),
    Column("created_at", Float(53), nullable=False),
    sa.UniqueConstraint("owner", "name"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("owner", String(48), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject_id", String(48), nullable=False, index=True),
    Column("payload", JSON, nullable=False),
    Column("result", JSON),
    *_leased(),
    _one_of("status", TaskStatus),
    _one_of("wish", Wish, nullable=True),
)
Index("ix_tasks_status_id", tasks.c.status, tasks.c.id)
Index(
    "ix_tasks_eligible",
    tasks.c.queue,
    tasks.c.id,
    sqlite_where=tasks.c.status == "queued",
    postgresql_where=tasks.c.status == "queued",
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("owner", String(48), nullable=False),
    Column("name", String(120), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("config", JSON, nullable=False),
    Column("config_hash", String(64), nullable=False),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False),
    Column("architecture_id", ForeignKey("architectures.id"), nullable=False),
    Column("parent_id", String(48)),
    _int("priority"),
    Column("max_runtime_s", Integer),
    Column("ran_s", Float(53), nullable=False, default=0.0, server_default="0"),
    Column("simulated", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    Column("cleared_at", Float(53)),
    Column("phase", String(32)),
    Column("pointer", JSON),
    Column("progress", JSON),
    Column("best", JSON),
    Column("metrics", JSON),
    Column("last_event_id", String(40)),
    Column("weights_id", String(48)),
    Column("weights_sha256", String(64)),
    Column("fingerprint", String(64)),
    Column("stopped", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    *_leased(),
    _one_of("status", JobStatus),
    _one_of("wish", Wish, nullable=True),
    Index("ix_jobs_owner_id", "owner", "id"),
    Index("ix_jobs_owner_status_id", "owner", "status", "id"),
    Index("ix_jobs_status_id", "status", "id"),
    Index("ix_jobs_dataset_id_id", "dataset_id", "id"),
    Index("ix_jobs_queue_finished_at", "queue", "finished_at"),
)
Index(
    "ix_jobs_weights_id",
    jobs.c.weights_id,
    sqlite_where=jobs.c.weights_id.is_not(None),
    postgresql_where=jobs.c.weights_id.is_not(None),
)
Index(
    "ix_jobs_fingerprint_id",
    jobs.c.fingerprint,
    jobs.c.id,
    sqlite_where=jobs.c.fingerprint.is_not(None),
    postgresql_where=jobs.c.fingerprint.is_not(None),
)
# In the order of claims, so that the next job is the first entry.
Index(
    "ix_jobs_eligible",
    jobs.c.queue,
    jobs.c.priority.desc(),
    jobs.c.id,
    sqlite_where=jobs.c.status == "queued",
    postgresql_where=jobs.c.status == "queued",
)
Index(
    "ix_jobs_kept",
    jobs.c.finished_at,
    sqlite_where=jobs.c.cleared_at.is_(None),
    postgresql_where=jobs.c.cleared_at.is_(None),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(120), nullable=False),
    Column("host", String(120), nullable=False),
    Column("gpus", JSON, nullable=False),
    Column("resumed_from", JSON),
    Column("started_at", Float(53), nullable=False),
    Column("finished_at", Float(53)),
    Column("outcome", String(16)),
    Column("code", String(40)),
    Column("exit_code", Integer),
    Column("last_event_id", String(40)),
)

job_transitions = Table(
    "job_transitions",
    metadata,
    Column("seq", sa.BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("from_status", String(16)),
    Column("to_status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("actor", String(120), nullable=False),
    Column("reason", String(400), nullable=False),
    Column("at", Float(53), nullable=False),
    _one_of("from_status", JobStatus, nullable=True),
    _one_of("to_status", JobStatus),
)

epoch_metrics = Table(
    "epoch_metrics",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("superseded", sa.Boolean, nullable=False, default=False),
    Column("event_id", String(40)),
    Column("values", JSON, nullable=False),
    Column("recorded_at", Float(53), nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("name", String(200), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("sha256", String(64), nullable=False),
    _big("size_bytes"),
    Column("media_type", String(100), nullable=False),
    Column("created_at", Float(53), nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(120), primary_key=True),
    Column("queue", String(40), nullable=False),
    Column("host", String(120), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("gpus", JSON, nullable=False),
    Column("version", String(40), nullable=False),
    Column("state", String(16), nullable=False),
    Column("current_id", String(48)),
    Column("seen_at", Float(53), nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("reason", String(400)),
    Column("unhealthy_since", Float(53)),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", String(48), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("job_id", String(48), nullable=False),
    Column("created_at", Float(53), nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String(120), nullable=False),
    _int("seq"),
)
