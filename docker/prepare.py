"""Prepare a deployment before its services start: newest database revision, and a first token.

Run by the one-shot service `migrate`; running it again changes nothing. It prints where the token lies, never
the token: what a container prints is kept in logs.
"""

from __future__ import annotations

from api.domain.settings import Settings, get_settings
from api.domain.store import migrate, open_store
from api.domain.tokens import TokenBook


def prepare(settings: Settings) -> str:
    """Migrate the database and make sure that the first token exists; return a line about both."""
    migrate(settings.sql_url)
    store = open_store(settings)
    try:
        TokenBook(store).ensure_local(settings.secrets_dir)
    finally:
        store.close()
    return f"the database is up to date; the first token is in {settings.secrets_dir / 'token'}"


if __name__ == "__main__":
    print(prepare(get_settings()), flush=True)
