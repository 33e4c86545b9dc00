"""The book of uploads in pieces: whose, how large, until when; and what an owner may have in all."""

from __future__ import annotations

import pytest

from api.domain.blobs import Blob
from api.domain.contents import ContentBook
from api.domain.datasets import DatasetBook
from api.domain.errors import Conflict, NotFound
from api.domain.store import Store
from api.domain.uploads import Upload, UploadBook
from tests.api.domain.library import Library
from tests.support.books import OWNER


def begun(book: UploadBook, size_bytes: int = 100, most: int | None = None, owner: str = OWNER) -> Upload:
    return book.create(
        owner, size_bytes=size_bytes, metadata={"filename": "a"}, expires_s=60, max_owner_bytes=most
    )


@pytest.fixture
def store(library: Library) -> Store:
    return library.store


def test_an_upload_is_its_owner_s(store: Store) -> None:
    book = UploadBook(store)
    made = begun(book)
    assert book.get(made.id, OWNER) == made == book.get(made.id, None)
    with pytest.raises(NotFound):
        book.get(made.id, "pr_other")
    book.delete(made.id)
    for _ in range(2):
        book.delete(made.id)
    with pytest.raises(NotFound):
        book.get(made.id, OWNER)
    with pytest.raises(NotFound):
        book.finish(made.id)
    assert not book.known(made.id)


def test_time_is_over_and_can_be_renewed(store: Store) -> None:
    book = UploadBook(store)
    made = begun(book)
    assert book.expired() == []
    book.renew(made.id, made.created_at - 1)
    assert book.expired() == [made.id]
    book.renew(made.id, made.expires_at)
    assert not book.drop_expired(made.id)
    book.renew(made.id, made.created_at - 1)
    assert book.drop_expired(made.id)
    assert not book.drop_expired(made.id)


def test_a_finished_upload_keeps_its_content(store: Store) -> None:
    book, sha256 = UploadBook(store), "a" * 64
    made = begun(book)
    assert book.own_content(OWNER, sha256) is None
    book.note_digest(made.id, sha256)
    assert book.own_content(OWNER, sha256) is None, "not before it is stored"
    book.finish(made.id)
    assert (book.own_content(OWNER, sha256), book.own_content("pr_other", sha256)) == (100, None)
    assert ContentBook(store).unnamed([sha256, "b" * 64]) == ["b" * 64]


def test_what_an_owner_may_have(store: Store) -> None:
    book, datasets = UploadBook(store), DatasetBook(store)
    free = sum_of(datasets)
    most = free + 1000
    first = begun(book, 600, most)
    with pytest.raises(Conflict, match="400|401"):
        begun(book, 401, most)
    begun(book, 401, most, owner="pr_other")
    book.note_digest(first.id, "a" * 64)
    with pytest.raises(Conflict):
        book.check_quota(OWNER, 401, most)
    book.check_quota(OWNER, 401, most, sha256="a" * 64)
    archive = Blob("a" * 64, 600)
    datasets.create(OWNER, "counts once", archive, file_name="a.zip", max_owner_bytes=most)
    datasets.create(OWNER, "and again", archive, file_name="a.zip", max_owner_bytes=most)
    with pytest.raises(Conflict) as refused:
        datasets.create(OWNER, "more", Blob("b" * 64, 401), file_name="b.zip", max_owner_bytes=most)
    assert refused.value.code == "QUOTA_EXCEEDED"
    datasets.create(OWNER, "fits", Blob("b" * 64, 400), file_name="b.zip", max_owner_bytes=most)


def sum_of(datasets: DatasetBook) -> int:
    return sum(one.size_bytes for one in datasets.list(OWNER).items)


def test_options_are_part_of_a_name(store: Store) -> None:
    datasets, archive = DatasetBook(store), Blob("c" * 64, 1)
    made = datasets.create(OWNER, "x", archive, file_name="x.zip", options={"imgsz": 320})
    assert made.dataset.options == {"imgsz": 320}
    again = datasets.create(OWNER, "x", archive, file_name="x.zip", options={"imgsz": 320})
    assert (again.created, again.dataset.id) == (False, made.dataset.id)
    assert not datasets.create(OWNER, "x", archive, file_name="x.zip").created
    with pytest.raises(Conflict):
        datasets.create(OWNER, "x", archive, file_name="x.zip", options={"imgsz": 640})
