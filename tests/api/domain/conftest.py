"""Fixtures of the domain's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.api.domain.library import Library, make_template, open_library

OpenBooks = Callable[..., AbstractContextManager[Library]]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=["sqlite", "postgresql"])
def open_books(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> OpenBooks:
    """Opens all books over an empty database of either kind, with settings changed as told."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return lambda **more: open_library(template, tmp_path, database_url=url, **more)


@pytest.fixture
def library(open_books: OpenBooks) -> Iterator[Library]:
    """All books over an empty database."""
    with open_books() as library:
        yield library
