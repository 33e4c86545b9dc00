"""what run a job is, and whether it was stopped before its end"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KNOWN = sa.text("fingerprint IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    # Not by a batch, which might make the table anew. Which program ran an earlier job is not known.
    op.add_column("jobs", sa.Column("fingerprint", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("stopped", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        "ix_jobs_fingerprint_id",
        "jobs",
        ["fingerprint", "id"],
        unique=False,
        sqlite_where=KNOWN,
        postgresql_where=KNOWN,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_jobs_fingerprint_id", table_name="jobs")
    op.execute("ALTER TABLE jobs DROP COLUMN stopped")
    op.execute("ALTER TABLE jobs DROP COLUMN fingerprint")
