"""Fixtures of the loops' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.domain.library import Library, make_template, open_library


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def library(template: Path, tmp_path: Path) -> Iterator[Library]:
    """All books over an empty database."""
    with open_library(template, tmp_path) as library:
        yield library
