"""runtime, simulation and retention of jobs, health of slots, indexes in the order of claims and lists"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

QUEUED = sa.text("status = 'queued'")
KEPT = sa.text("cleared_at IS NULL")


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("max_runtime_s", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("ran_s", sa.Float(precision=53), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("simulated", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("cleared_at", sa.Float(precision=53), nullable=True))
    op.drop_index("ix_jobs_eligible", table_name="jobs")
    op.drop_index("ix_jobs_dataset_id", table_name="jobs")
    op.create_index(
        "ix_jobs_eligible",
        "jobs",
        ["queue", sa.text("priority DESC"), "id"],
        unique=False,
        sqlite_where=QUEUED,
        postgresql_where=QUEUED,
    )
    op.create_index(
        "ix_jobs_kept", "jobs", ["finished_at"], unique=False, sqlite_where=KEPT, postgresql_where=KEPT
    )
    op.create_index("ix_jobs_dataset_id_id", "jobs", ["dataset_id", "id"], unique=False)
    op.create_index("ix_jobs_owner_status_id", "jobs", ["owner", "status", "id"], unique=False)
    op.create_index("ix_jobs_queue_finished_at", "jobs", ["queue", "finished_at"], unique=False)
    op.create_index("ix_jobs_status_id", "jobs", ["status", "id"], unique=False)
    op.create_index("ix_tasks_status_id", "tasks", ["status", "id"], unique=False)
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("reason", sa.String(length=400), nullable=True))
        batch_op.add_column(sa.Column("unhealthy_since", sa.Float(precision=53), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("unhealthy_since")
        batch_op.drop_column("reason")
    op.drop_index("ix_tasks_status_id", table_name="tasks")
    for name in (
        "ix_jobs_status_id",
        "ix_jobs_queue_finished_at",
        "ix_jobs_owner_status_id",
        "ix_jobs_dataset_id_id",
        "ix_jobs_kept",
        "ix_jobs_eligible",
    ):
        op.drop_index(name, table_name="jobs")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("cleared_at")
        batch_op.drop_column("simulated")
        batch_op.drop_column("ran_s")
        batch_op.drop_column("max_runtime_s")
    op.create_index("ix_jobs_dataset_id", "jobs", ["dataset_id"], unique=False)
    op.create_index(
        "ix_jobs_eligible",
        "jobs",
        ["queue", "priority", "id"],
        unique=False,
        sqlite_where=QUEUED,
        postgresql_where=QUEUED,
    )
