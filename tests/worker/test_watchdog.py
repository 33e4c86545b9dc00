"""A hang is told from a slow run by what the journal says, in the time of a clock that is given."""

from typing import Any

import pytest

from worker.watchdog import RunClock, Watchdog


def event(type_: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, **more}


TRAINING = event("phase", phase="training")
BATCH = event("batch", epoch=0, batch=0, batches=2)


def looks(dog: Watchdog, *times_and_events: tuple[float, list[dict[str, Any]]]) -> list[bool]:
    return [dog.look(events, now) for now, events in times_and_events]


def make(**more: Any) -> Watchdog:
    return Watchdog(**{"stall_s": 10.0, "stall_phase_s": 60.0, "now": 0.0, "max_gap_s": 100.0, **more})


def test_silence_while_training_is_a_hang() -> None:
    dog = make()
    assert looks(dog, (1, [TRAINING, BATCH]), (10.9, []), (11, [])) == [False, False, True]
    assert (dog.phase, dog.silent_s, dog.limit_s) == ("training", 10.0, 10.0)


@pytest.mark.parametrize("phase", [None, "preparing", "validating", "exporting", "stopping"])
def test_other_phases_have_their_own_time(phase: str | None) -> None:
    dog = make()
    first = [event("phase", phase=phase)] if phase else []
    assert looks(dog, (0, first), (59, []), (60, [])) == [False, False, True]


@pytest.mark.parametrize("type_", ["batch", "epoch", "checkpoint", "log", "warning", "artifact", "resume"])
def test_every_sign_of_progress_counts(type_: str) -> None:
    assert looks(make(), (0, [TRAINING]), (9, [event(type_)]), (18, []), (19, [])) == [False] * 3 + [True]


def test_load_figures_are_no_progress() -> None:
    dog = make()
    told = [dog.look([event("system")] if now else [TRAINING], float(now)) for now in range(11)]
    assert told == [False] * 10 + [True]


def test_a_batch_after_a_validation_means_training_again() -> None:
    dog = make()
    assert looks(dog, (0, [event("phase", phase="validating")]), (1, [BATCH]), (11, [])) == [
        False,
        False,
        True,
    ]


def test_a_machine_that_slept_saw_no_hang() -> None:
    dog = make(max_gap_s=2.0)
    assert looks(dog, (0, [TRAINING]), (1000, []), (1001, []), (1002, [BATCH]), (1003, [])) == [False] * 5
    assert dog.silent_s == 1.0


def test_progress_that_was_made_meanwhile_counts() -> None:
    assert looks(make(), (0, [TRAINING]), (50, [BATCH]), (59, [])) == [False] * 3


def test_the_limit_is_over_all_attempts() -> None:
    clock = RunClock(100, ran_s=70.0, now=1000.0)
    assert [clock.is_over(now) for now in (1000.0, 1029.9, 1030.0)] == [False, False, True]
    assert RunClock(100, ran_s=100.5, now=1000.0).is_over(1000.0)
    assert not RunClock(None, ran_s=1e9, now=0.0).is_over(1e9)
