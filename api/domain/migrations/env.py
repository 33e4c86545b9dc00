"""What Alembic runs: brings the database of the configuration's `url` attribute to a revision."""

from __future__ import annotations

from alembic import context

from api.domain.store import make_engine
from api.domain.tables import metadata


def run() -> None:
    """Run the migrations in one transaction."""
    engine = make_engine(context.config.attributes["url"])
    try:
        with engine.connect() as conn, conn.begin():
            context.configure(
                connection=conn, target_metadata=metadata, compare_type=True, render_as_batch=True
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run()
