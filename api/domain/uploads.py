"""The book of uploads that come in pieces: whose they are, how large they will be, until when they are kept.

How much of an upload is there is not written here: its file alone says that, so the two cannot disagree.
Opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import Conflict, NotFound
from api.domain.ids import new_id
from api.domain.store import Store, serialise

PREFIX = "up"


@dataclass(frozen=True)
class Upload:
    """An upload that comes in pieces; `sha256` is known once all of it came, `finished_at` when it is kept.

    How much of it is there is said by its file alone.
    """

    id: str
    owner: str
    metadata: Mapping[str, str]
    size_bytes: int
    created_at: float
    expires_at: float
    sha256: str | None
    finished_at: float | None


class UploadBook:
    """Uploads of all owners."""

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.clock = clock

    def create(
        self,
        owner: str,
        *,
        size_bytes: int,
        metadata: Mapping[str, str],
        expires_s: float,
        max_owner_bytes: int | None,
    ) -> Upload:
        """Enter an upload of which nothing came yet; raises Conflict QUOTA_EXCEEDED."""

        def write(conn: Connection) -> Upload:
            check_quota(conn, owner, size_bytes, max_owner_bytes)
            now = self.clock.wall()
            upload = Upload(
                id=new_id(PREFIX),
                owner=owner,
                metadata=dict(metadata),
                size_bytes=size_bytes,
                created_at=now,
                expires_at=now + expires_s,
                sha256=None,
                finished_at=None,
            )
            conn.execute(sa.insert(t.uploads).values(**asdict(upload)))
            return upload

        return self.store.write(write)

    def get(self, upload_id: str, owner: str | None) -> Upload:
        """Return an upload; raises NotFound. One that expired is there until it is collected."""
        query = sa.select(t.uploads).where(t.uploads.c.id == upload_id)
        if owner is not None:
            query = query.where(t.uploads.c.owner == owner)
        row = self.store.read(lambda conn: conn.execute(query).mappings().one_or_none())
        if row is None:
            raise _unknown(upload_id)
        return Upload(**row)

    def renew(self, upload_id: str, expires_at: float) -> None:
        """Keep an upload for longer; nothing happens to one that is gone."""
        change = sa.update(t.uploads).where(t.uploads.c.id == upload_id).values(expires_at=expires_at)
        self.store.write(lambda conn: conn.execute(change).rowcount)

    def note_digest(self, upload_id: str, sha256: str) -> None:
        """Write what all of the bytes are, before they are moved to where contents lie; raises NotFound."""
        self._set(upload_id, {"sha256": sha256})

    def finish(self, upload_id: str) -> float:
        """Write that the content is stored, and return when; raises NotFound."""
        now = self.clock.wall()
        self._set(upload_id, {"finished_at": now})
        return now

    def delete(self, upload_id: str) -> None:
        """Forget an upload; nothing happens to one that is gone."""
        gone = sa.delete(t.uploads).where(t.uploads.c.id == upload_id)
        self.store.write(lambda conn: conn.execute(gone).rowcount)

    def expired(self, limit: int = 1000) -> list[str]:
        """Return the ids of uploads whose time is over, oldest first."""
        query = (
            sa.select(t.uploads.c.id)
            .where(t.uploads.c.expires_at < self.clock.wall())
            .order_by(t.uploads.c.expires_at)
            .limit(limit)
        )
        return self.store.read(lambda conn: list(conn.execute(query).scalars()))

    def drop_expired(self, upload_id: str) -> bool:
        """Forget an upload if its time is over still; tells whether it is gone."""
        over = t.uploads.c.expires_at < self.clock.wall()
        gone = sa.delete(t.uploads).where(t.uploads.c.id == upload_id, over)
        return self.store.write(lambda conn: conn.execute(gone).rowcount) > 0

    def known(self, upload_id: str) -> bool:
        """Tell whether there is a row of this id."""
        query = sa.select(t.uploads.c.id).where(t.uploads.c.id == upload_id)
        return self.store.read(lambda conn: conn.execute(query).first()) is not None

    def own_content(self, owner: str, sha256: str) -> int | None:
        """Return the size of a content the owner has sent before and still has; None if there is none."""
        kept = [
            sa.select(table.c.size_bytes).where(
                table.c.owner == owner, table.c.sha256 == sha256, table.c.deleted_at.is_(None)
            )
            for table in (t.datasets, t.weights)
        ]
        uploads = sa.select(t.uploads.c.size_bytes).where(
            t.uploads.c.owner == owner, t.uploads.c.sha256 == sha256, t.uploads.c.finished_at.is_not(None)
        )
        query = sa.union_all(*kept, uploads).limit(1)
        return self.store.read(lambda conn: conn.execute(query).scalar())

    def check_quota(
        self, owner: str, size_bytes: int, max_bytes: int | None, *, sha256: str | None = None
    ) -> None:
        """Raise Conflict QUOTA_EXCEEDED if so many bytes more are too many for an owner."""
        if max_bytes is not None:
            self.store.read(lambda conn: check_quota(conn, owner, size_bytes, max_bytes, sha256=sha256))

    def _set(self, upload_id: str, values: Mapping[str, object]) -> None:
        change = sa.update(t.uploads).where(t.uploads.c.id == upload_id).values(**values)
        if not self.store.write(lambda conn: conn.execute(change).rowcount):
            raise _unknown(upload_id)


def check_quota(
    conn: Connection, owner: str, size_bytes: int, max_bytes: int | None, *, sha256: str | None = None
) -> None:
    """Raise Conflict QUOTA_EXCEEDED if so many bytes more are too many; a content counts once.

    Inside a write nobody else of the same owner can come in between.
    """
    if max_bytes is None:
        return
    serialise(conn, f"quota {owner}")
    contents, coming = _held(conn, owner)
    if sha256 is not None and sha256 in contents:
        return
    held = sum(contents.values()) + coming
    if held + size_bytes > max_bytes:
        raise Conflict(
            f"{size_bytes} bytes more do not fit: {held} of {max_bytes} bytes are taken by your datasets, "
            "weights and uploads; delete some",
            code="QUOTA_EXCEEDED",
        )


def _held(conn: Connection, owner: str) -> tuple[dict[str, int], int]:
    """Return what an owner has: sizes of contents by digest, and the size of what is still to come."""
    kept = [
        sa.select(table.c.sha256, table.c.size_bytes).where(
            table.c.owner == owner, table.c.deleted_at.is_(None)
        )
        for table in (t.datasets, t.weights)
    ]
    uploads = sa.select(t.uploads.c.sha256, t.uploads.c.size_bytes).where(t.uploads.c.owner == owner)
    contents = {sha256: size for query in kept for sha256, size in conn.execute(query)}
    coming = 0
    for sha256, size in conn.execute(uploads):
        if sha256 is None:
            coming += size
        else:
            contents[sha256] = size
    return contents, coming


def _unknown(upload_id: str) -> NotFound:
    return NotFound(f"no upload {upload_id[:60]!r}", code="UPLOAD_NOT_FOUND")
