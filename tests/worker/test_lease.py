"""Heartbeats come at once, periodically and when nudged; only an answer ends them."""

import math
import time
from collections.abc import Callable

from api.domain.errors import Fenced, StoreUnavailable
from api.domain.records import Wish
from api.domain.settings import Settings
from worker import supervisor
from worker.lease import LeaseKeeper


class Book:
    def __init__(self) -> None:
        self.calls = 0
        self.answer: Wish | Exception | None = None

    def renew(self) -> Wish | None:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "watchdog"
        time.sleep(0.005)


def test_a_wish_comes_back_and_a_nudge_does_not_wait() -> None:
    book = Book()
    keeper = LeaseKeeper(book.renew, period_s=60)
    keeper.start()
    until(lambda: keeper.num_beats() == 1)
    book.answer = Wish.CANCEL
    keeper.nudge()
    until(lambda: keeper.wish is Wish.CANCEL)
    keeper.stop()
    assert not keeper.fenced.is_set()


def test_a_database_that_is_away_changes_nothing() -> None:
    book = Book()
    book.answer = StoreUnavailable("away")
    keeper = LeaseKeeper(book.renew, period_s=0.01)
    keeper.start()
    until(lambda: book.calls >= 3)
    assert keeper.num_beats() == 0
    assert not keeper.fenced.is_set()
    book.answer = None
    until(lambda: keeper.num_beats() > 0)
    keeper.stop()


def test_an_answer_that_the_claim_is_gone_ends_it() -> None:
    book = Book()
    book.answer = Fenced("gone")
    keeper = LeaseKeeper(book.renew, period_s=0.01)
    keeper.start()
    assert keeper.fenced.wait(5)
    keeper.stop()
    assert book.calls == 1


def test_the_age_of_the_last_answer_is_known() -> None:
    book = Book()
    book.answer = StoreUnavailable("away")
    keeper = LeaseKeeper(book.renew, period_s=0.01)
    keeper.start()
    until(lambda: book.calls >= 2)
    assert keeper.answered_s_ago() == math.inf
    book.answer = None
    until(lambda: keeper.num_beats() > 0)
    assert keeper.answered_s_ago() < 5
    book.answer = StoreUnavailable("away again")
    until(lambda: keeper.answered_s_ago() > 0.1)
    keeper.stop()


def test_a_cancel_is_acted_on_within_five_seconds_at_production_periods() -> None:
    """From the wish in the book to SIGTERM: the rest of a period, a slow write, and a look at the child."""
    settings = Settings()
    slow_write_s = 2.0
    assert settings.heartbeat_s + slow_write_s + 2 * supervisor.POLL_S < 5.0
    # And a hang is noticed before people give up on it, long after any batch.
    assert 10 * settings.heartbeat_s < settings.stall_s <= settings.stall_phase_s
