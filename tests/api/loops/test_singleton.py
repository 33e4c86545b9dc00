"""One active copy of a loop, judged without wall clocks."""

from __future__ import annotations

from api.domain.clock import ManualClock
from api.loops.singleton import Singleton
from tests.api.domain.library import Library


def copy(library: Library, clock: ManualClock, *, renew_every_s: float = 0.0) -> Singleton:
    return Singleton(library.store, "reaper", ttl_s=10.0, renew_every_s=renew_every_s, clock=clock.clock())


def test_the_second_copy_waits(library: Library) -> None:
    here, there = ManualClock(), ManualClock(now=5.0)
    one, two = copy(library, here), copy(library, there)
    for _ in range(5):
        assert one.hold()
        assert not two.hold()
        here.advance(4)
        there.advance(4)


def test_a_silent_copy_is_replaced_after_its_time(library: Library) -> None:
    here, there = ManualClock(), ManualClock(now=5.0)
    one, two = copy(library, here), copy(library, there)
    assert one.hold()
    assert not two.hold()
    there.advance(9.9)
    assert not two.hold()
    there.advance(0.1)
    assert two.hold()
    assert not one.hold()
    assert two.hold()


def test_a_copy_that_gives_way_is_replaced_at_once(library: Library) -> None:
    one, two = copy(library, ManualClock()), copy(library, ManualClock())
    assert one.hold()
    assert not two.hold()
    one.release()
    two.release()
    assert two.hold()


def test_a_fresh_hold_is_believed(library: Library) -> None:
    here = ManualClock()
    one = copy(library, here, renew_every_s=2.5)
    assert one.hold()
    one.release()
    assert one.hold()
    two = copy(library, ManualClock())
    assert not two.hold()
    here.advance(2.4)
    assert one.hold()
    here.advance(0.2)
    assert one.hold()


def test_names_are_apart(library: Library) -> None:
    clock = ManualClock().clock()
    assert Singleton(library.store, "a", ttl_s=1, clock=clock).hold()
    assert Singleton(library.store, "b", ttl_s=1, clock=clock).hold()
