"""The job book against its model, on both databases: a short run; the fault tests have the long one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.api.domain.conftest import OpenBooks
from tests.support.book_machine import RETRIES, RUNNING_EACH, BookMachine

EXAMPLES = {"sqlite": 16, "postgresql": 8}


def test_the_book_is_its_model(open_books: OpenBooks, request: pytest.FixtureRequest) -> None:
    counts: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: BookMachine(
            lambda: open_books(job_retries=RETRIES, max_running_per_owner=RUNNING_EACH), counts
        ),
        settings=settings(
            max_examples=EXAMPLES[request.node.callspec.params["open_books"]],
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert counts["claims"] and counts["stale calls refused"]
