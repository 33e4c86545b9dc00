"""One world a module for tests that only make jobs of their own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.job_states import Jobs
from tests.support.service import client_of, new_world


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, books_in: str) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("world")
    with new_world(folder, retry_backoff_s=600.0) as world, client_of(world) as client:
        yield Jobs(world, client)
