"""uploads in pieces, options of an import, datasets that were only looked at"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OLD_STATES = "status IN ('ingesting', 'ready', 'invalid')"
NEW_STATES = "status IN ('ingesting', 'ready', 'invalid', 'inspected')"


def _states(old: str, new: str) -> None:
    """Replace the check of a dataset's status.

    SQLite has no statement for it, and its table cannot be made anew inside a transaction while jobs refer to
    it; its documentation (ALTER TABLE, section 7) tells to edit the text of the definition.
    """
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint(op.f("ck_datasets_status"), "datasets", type_="check")
        op.create_check_constraint(op.f("ck_datasets_status"), "datasets", new)
        return
    conn = op.get_bind()
    version = conn.exec_driver_sql("PRAGMA schema_version").scalar_one()
    conn.exec_driver_sql("PRAGMA writable_schema=ON")
    edit = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'datasets'"
    conn.exec_driver_sql(edit, (old, new))
    conn.exec_driver_sql(f"PRAGMA schema_version={version + 1}")
    conn.exec_driver_sql("PRAGMA writable_schema=OFF")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("owner", sa.String(length=48), nullable=False),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("finished_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"], unique=False)
    op.create_index(op.f("ix_uploads_sha256"), "uploads", ["sha256"], unique=False)
    op.create_index("ix_uploads_owner_id", "uploads", ["owner", "id"], unique=False)
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("options", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("files", sa.JSON(none_as_null=True), nullable=True))
    _states(OLD_STATES, NEW_STATES)


def downgrade() -> None:
    """Take back."""
    op.execute("UPDATE datasets SET status = 'invalid' WHERE status = 'inspected'")
    _states(NEW_STATES, OLD_STATES)
    # Not by a batch, which would make the table anew.
    op.execute("ALTER TABLE datasets DROP COLUMN files")
    op.execute("ALTER TABLE datasets DROP COLUMN options")
    op.drop_index("ix_uploads_owner_id", table_name="uploads")
    op.drop_index(op.f("ix_uploads_sha256"), table_name="uploads")
    op.drop_index(op.f("ix_uploads_expires_at"), table_name="uploads")
    op.drop_table("uploads")
