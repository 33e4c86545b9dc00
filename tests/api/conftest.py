"""Worlds for tests of the API: one for each test that writes, one a module for tables of refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service import World, client_of, new_world
from tests.support.stores import in_each_store

SMALL: dict[str, Any] = {
    "max_upload_bytes": 300_000,
    "max_json_bytes": 20_000,
    "max_architecture_bytes": 20_000,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that make a book on SQLite and on PostgreSQL, as told."""
    in_each_store(metafunc)


@pytest.fixture
def world(tmp_path: Path, books_in: str) -> Iterator[World]:
    with new_world(tmp_path, **SMALL) as made:
        yield made


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with client_of(world) as made:
        yield made


@pytest.fixture(scope="module")
def untouched_world(tmp_path_factory: pytest.TempPathFactory, books_in: str) -> Iterator[World]:
    with new_world(tmp_path_factory.mktemp("world"), **SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def untouched(untouched_world: World) -> Iterator[httpx.Client]:
    """A client whose requests are all refused, so that its world stays as it was."""
    with client_of(untouched_world) as made:
        yield made
