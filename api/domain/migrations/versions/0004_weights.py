"""imported weights, and jobs that start from them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ALIVE = sa.text("deleted_at IS NULL")
NAMED = sa.text("weights_id IS NOT NULL")
STATES = "status IN ('importing', 'ready', 'invalid', 'failed')"


def _count(name: str, kind: type[sa.Integer] = sa.Integer) -> sa.Column[int]:
    return sa.Column(name, kind(), server_default="0", nullable=False)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "weights",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("owner", sa.String(length=48), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored_sha256", sa.String(length=64), nullable=True),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("report_sha256", sa.String(length=64), nullable=True),
        sa.Column("architecture_hash", sa.String(length=64), nullable=True),
        sa.Column("num_classes", sa.Integer(), nullable=True),
        sa.Column("classes", sa.JSON(none_as_null=True), nullable=False),
        _count("num_tensors"),
        _count("num_parameters", sa.BigInteger),
        _count("num_errors"),
        _count("num_warnings"),
        sa.Column("provenance", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        _count("revision"),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("finished_at", sa.Float(precision=53), nullable=True),
        sa.Column("deleted_at", sa.Float(precision=53), nullable=True),
        sa.CheckConstraint(STATES, name=op.f("ck_weights_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_weights")),
    )
    op.create_index(
        "uq_weights_owner_name_live",
        "weights",
        ["owner", "name"],
        unique=True,
        sqlite_where=ALIVE,
        postgresql_where=ALIVE,
    )
    # Not by a batch, which might make the table anew.
    op.add_column("jobs", sa.Column("weights_id", sa.String(length=48), nullable=True))
    op.add_column("jobs", sa.Column("weights_sha256", sa.String(length=64), nullable=True))
    op.create_index(
        "ix_jobs_weights_id", "jobs", ["weights_id"], unique=False, sqlite_where=NAMED, postgresql_where=NAMED
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_jobs_weights_id", table_name="jobs")
    op.execute("ALTER TABLE jobs DROP COLUMN weights_sha256")
    op.execute("ALTER TABLE jobs DROP COLUMN weights_id")
    op.drop_index("uq_weights_owner_name_live", table_name="weights")
    op.drop_table("weights")
