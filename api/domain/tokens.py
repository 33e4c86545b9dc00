"""Tokens: random, shown once, kept as SHA-256; scoped, expiring, revocable.

One table serves three kinds: `bearer` for programs, `session` for a browser's cookie, `once` for the address
that a start prints and that is good for one session. Knows no HTTP.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import NotFound
from api.domain.ids import new_id
from api.domain.records import Principal
from api.domain.store import Store, insert_or_ignore

Kind = Literal["bearer", "session", "once"]
PREFIXES: Final[dict[Kind, str]] = {"bearer": "ts_", "session": "tss_", "once": "tso_"}
SCOPES: Final = ("read", "write", "admin")
LOCAL_PRINCIPAL = "local"
LAST_USE_STEP_S = 60.0
MAX_SECRET_CHARS = 128
_MAX_NOTED = 10_000


@dataclass(frozen=True)
class NewToken:
    """A token at its birth: the only moment its secret is known."""

    id: str
    secret: str
    expires_at: float | None


@dataclass(frozen=True)
class TokenInfo:
    """What can be told of a token afterwards."""

    id: str
    label: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    last_used_at: float | None


class TokenBook:
    """Principals and their tokens."""

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.clock = clock
        self._noted: dict[str, float] = {}

    def create(
        self,
        principal: str,
        *,
        kind: Kind = "bearer",
        label: str = "",
        scopes: Sequence[str] = SCOPES,
        lifetime_s: float | None = None,
    ) -> NewToken:
        """Make a token for the principal of this name (made if new), good for `lifetime_s` or for ever."""
        unknown = set(scopes) - set(SCOPES)
        if unknown:
            raise ValueError(f"unknown scopes: {sorted(unknown)}")
        secret = PREFIXES[kind] + secrets.token_urlsafe(32)
        now = self.clock.wall()
        expires_at = now + lifetime_s if lifetime_s is not None else None

        def write(conn: Connection) -> NewToken:
            token_id = new_id("tok")
            conn.execute(
                sa.insert(t.api_tokens).values(
                    id=token_id,
                    principal_id=_principal(conn, principal, now),
                    kind=kind,
                    label=label[:80],
                    hash=_hash(secret),
                    scopes=list(scopes),
                    created_at=now,
                    expires_at=expires_at,
                )
            )
            return NewToken(token_id, secret, expires_at)

        return self.store.write(write)

    def verify(self, secret: str, *, kinds: Sequence[Kind] = ("bearer", "session")) -> Principal | None:
        """Return who a secret speaks for; None where it is unknown, of another kind, expired or revoked."""
        row = self.store.read(lambda conn: self._find(conn, secret, kinds))
        if row is None:
            return None
        self._note_use(row)
        return _as_principal(row)

    def _note_use(self, row: RowMapping) -> None:
        """Write when a token was used, if that is quickly done: no request may wait or fail for it."""
        now, tick = self.clock.wall(), self.clock.monotonic()
        known = row["last_used_at"]
        if known is not None and now - known < LAST_USE_STEP_S:
            return
        tried_at = self._noted.get(row["id"])
        if tried_at is not None and tick - tried_at < LAST_USE_STEP_S:
            return
        if len(self._noted) >= _MAX_NOTED:
            self._noted.clear()
        self._noted[row["id"]] = tick
        used = sa.update(t.api_tokens).where(t.api_tokens.c.id == row["id"]).values(last_used_at=now)
        self.store.write_if_free(lambda conn: conn.execute(used))

    def redeem(self, secret: str) -> Principal | None:
        """Use up a one-time token and return who it speaks for; None where it is not, or no more, good."""

        def write(conn: Connection) -> Principal | None:
            row = self._find(conn, secret, ("once",))
            if row is None:
                return None
            table = t.api_tokens
            used = sa.update(table).where(table.c.id == row["id"], table.c.revoked_at.is_(None))
            now = self.clock.wall()
            done = conn.execute(used.values(revoked_at=now, last_used_at=now))
            return _as_principal(row) if done.rowcount == 1 else None

        return self.store.write(write)

    def revoke(self, token_id: str, principal_id: str | None = None) -> None:
        """End a token; raises NotFound where there is none, or it is not this principal's."""
        table = t.api_tokens
        mine = [table.c.id == token_id, table.c.revoked_at.is_(None)]
        if principal_id is not None:
            mine.append(table.c.principal_id == principal_id)
        statement = sa.update(table).where(*mine).values(revoked_at=self.clock.wall())
        if self.store.write(lambda conn: conn.execute(statement).rowcount) == 0:
            raise NotFound(f"no token {token_id[:60]!r}")

    def list(self, principal_id: str) -> Sequence[TokenInfo]:
        """Return the living bearer tokens of a principal, oldest first."""
        table = t.api_tokens
        query = (
            sa.select(table)
            .where(table.c.principal_id == principal_id, table.c.kind == "bearer", *self._alive())
            .order_by(table.c.id)
        )

        def read(conn: Connection) -> Sequence[TokenInfo]:
            return [
                TokenInfo(
                    id=row["id"],
                    label=row["label"],
                    scopes=tuple(row["scopes"]),
                    created_at=row["created_at"],
                    expires_at=row["expires_at"],
                    last_used_at=row["last_used_at"],
                )
                for row in conn.execute(query).mappings()
            ]

        return self.store.read(read)

    def ensure_local(self, secrets_dir: Path) -> str:
        """Return the token of this machine's user, kept in `secrets_dir/token` (0600); make it if needed."""
        path = secrets_dir / "token"
        if path.is_file():
            secret = path.read_text(encoding="ascii").strip()
            if self.verify(secret, kinds=("bearer",)) is not None:
                return secret
        secrets_dir.mkdir(parents=True, exist_ok=True)
        secrets_dir.chmod(0o700)
        new = self.create(LOCAL_PRINCIPAL, label="first start")
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(new.secret + "\n", encoding="ascii")
        return new.secret

    def _find(self, conn: Connection, secret: str, kinds: Sequence[Kind]) -> RowMapping | None:
        if len(secret) > MAX_SECRET_CHARS:
            return None
        table = t.api_tokens
        query = (
            sa.select(table, t.principals.c.name.label("principal_name"))
            .join(t.principals, t.principals.c.id == table.c.principal_id)
            .where(table.c.hash == _hash(secret), table.c.kind.in_(list(kinds)), *self._alive())
        )
        return conn.execute(query).mappings().one_or_none()

    def _alive(self) -> Sequence[sa.ColumnElement[bool]]:
        expires = t.api_tokens.c.expires_at
        return [t.api_tokens.c.revoked_at.is_(None), sa.or_(expires.is_(None), expires > self.clock.wall())]


def _principal(conn: Connection, name: str, now: float) -> str:
    table = t.principals
    insert_or_ignore(conn, table, {"id": new_id("usr"), "name": name, "created_at": now})
    return str(conn.execute(sa.select(table.c.id).where(table.c.name == name)).scalar_one())


def _as_principal(row: RowMapping) -> Principal:
    return Principal(row["principal_id"], row["principal_name"], frozenset(row["scopes"]), row["id"])


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
