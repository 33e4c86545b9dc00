"""Tokens: kinds, expiry, revocation, and that only their hash is kept."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.domain import tables
from api.domain.errors import NotFound
from api.domain.tokens import TokenBook
from tests.api.domain.library import Library


@pytest.fixture
def tokens(library: Library) -> TokenBook:
    return TokenBook(library.store, library.clock.clock())


def test_a_token_speaks_for_its_principal(tokens: TokenBook) -> None:
    ann = tokens.verify(tokens.create("ann", scopes=("read",)).secret)
    again = tokens.verify(tokens.create("ann").secret)
    bob = tokens.verify(tokens.create("bob").secret)
    assert ann is not None and again is not None and bob is not None
    assert (ann.name, ann.scopes, ann.is_admin) == ("ann", frozenset({"read"}), False)
    assert ann.id == again.id != bob.id
    assert again.is_admin


def test_only_the_hash_is_kept(tokens: TokenBook, library: Library) -> None:
    secret = tokens.create("ann").secret
    stored = library.store.read(lambda c: c.execute(sa.select(tables.api_tokens)).mappings().one())
    assert secret not in str(dict(stored))


@pytest.mark.parametrize("secret", ["", "ts_", "ts_" + "a" * 43, "x" * 10_000, "\u00e9"])
def test_unknown(tokens: TokenBook, secret: str) -> None:
    assert tokens.verify(secret) is None
    assert tokens.redeem(secret) is None


def test_expiry(tokens: TokenBook, library: Library) -> None:
    secret = tokens.create("ann", lifetime_s=60).secret
    assert tokens.verify(secret) is not None
    library.clock.advance(60)
    assert tokens.verify(secret) is None


def test_revocation(tokens: TokenBook) -> None:
    token = tokens.create("ann")
    with pytest.raises(NotFound):
        tokens.revoke(token.id, "usr_someone")
    tokens.revoke(token.id)
    assert tokens.verify(token.secret) is None
    with pytest.raises(NotFound):
        tokens.revoke(token.id)


def test_kinds_are_not_mixed(tokens: TokenBook) -> None:
    once = tokens.create("ann", kind="once").secret
    session = tokens.create("ann", kind="session").secret
    assert tokens.verify(once) is None
    assert tokens.verify(session, kinds=("bearer",)) is None
    assert tokens.redeem(session) is None
    assert tokens.verify(session) is not None
    assert tokens.redeem(once) is not None
    assert tokens.redeem(once) is None


def test_unknown_scope(tokens: TokenBook) -> None:
    with pytest.raises(ValueError, match="unknown scopes"):
        tokens.create("ann", scopes=("root",))


def test_list_shows_living_bearer_tokens_and_their_use(tokens: TokenBook, library: Library) -> None:
    used = tokens.create("ann", label="ci")
    tokens.create("ann", kind="session")
    gone = tokens.create("ann")
    tokens.revoke(gone.id)
    ann = tokens.verify(used.secret)
    assert ann is not None
    first = library.clock.now
    library.clock.advance(30)
    tokens.verify(used.secret)
    [info] = tokens.list(ann.id)
    assert (info.id, info.label, info.last_used_at) == (used.id, "ci", first)
    library.clock.advance(30)
    tokens.verify(used.secret)
    assert tokens.list(ann.id)[0].last_used_at == first + 60


def test_a_locked_book_keeps_nobody_out(tokens: TokenBook, library: Library) -> None:
    secret = tokens.create("ann").secret
    with library.store.engine.connect() as locker:
        # The engine begins IMMEDIATE: nobody else can write until this ends.
        if library.store.dialect == "postgresql":
            locker.exec_driver_sql("LOCK TABLE api_tokens IN EXCLUSIVE MODE")
        else:
            locker.exec_driver_sql("SELECT 1")
        began = time.monotonic()
        ann = tokens.verify(secret)
        assert ann is not None and tokens.verify(secret) is not None
        assert time.monotonic() - began < 5, "the book's own patience is 15 s"
        locker.rollback()
    assert tokens.list(ann.id)[0].last_used_at is None
    tokens.verify(secret)
    assert tokens.list(ann.id)[0].last_used_at is None, "tried at most once a minute"
    library.clock.advance(60)
    tokens.verify(secret)
    assert tokens.list(ann.id)[0].last_used_at == library.clock.now


def test_the_local_token_is_made_once_and_again_when_lost(tokens: TokenBook, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secret = tokens.ensure_local(folder)
    assert tokens.ensure_local(folder) == secret
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    local = tokens.verify(secret)
    assert local is not None
    tokens.revoke(local.token_id)
    assert tokens.ensure_local(folder) != secret
