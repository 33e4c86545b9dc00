"""What a job's row shows follows from its events."""

from functools import reduce
from typing import Any

from worker.progress import Progress, fold


def batch(epoch: int, number: int, ts: float) -> dict[str, Any]:
    return {"type": "batch", "ts": ts, "epoch": epoch, "batch": number, "batches": 10,
            "loss": {"box": 1.0, "obj": 1.0, "cls": 1.0}, "lr": [0.1], "images_per_s": 5.0}  # fmt: skip


def epoch(number: int, best: bool) -> dict[str, Any]:
    return {"v": 1, "seq": 9, "ts": 1.0, "type": "epoch", "epoch": number, "epochs": 4, "map50": number,
            "best": best}  # fmt: skip


def after(*events: dict[str, Any]) -> Progress:
    return reduce(fold, events, Progress())


START = {"type": "start", "ts": 0.0, "epochs": 4}


def test_nothing_to_show_yet() -> None:
    assert after(START, {"type": "phase", "phase": "preparing"}).values() is None
    assert after(START, {"type": "phase", "phase": "preparing"}).phase == "preparing"


def test_the_time_left_at_the_average_speed() -> None:
    assert after(START, batch(0, 0, 100.0)).eta_s() is None
    # From 0.1 to 1.1 epochs in 50 s; 2.9 epochs are left.
    values = after(START, batch(0, 0, 100.0), epoch(0, True), batch(1, 0, 150.0)).values()
    assert values is not None
    assert values["eta_s"] == 145.0
    assert (values["epoch"], values["batch"], values["epochs"], values["last_epoch"]) == (1, 0, 4, 0)


def test_an_attempt_that_resumes_counts_from_where_it_began() -> None:
    assert after(START, batch(3, 4, 100.0), batch(3, 6, 102.0)).eta_s() == 3.0
    assert after(START, batch(3, 4, 100.0), batch(3, 9, 105.0)).eta_s() == 0.0


def test_the_best_is_the_last_that_said_so() -> None:
    best = after(epoch(0, True), epoch(1, True), epoch(2, False)).best
    assert best == {"epoch": 1, "map50": 1}


def test_batches_are_counted_within_the_attempt() -> None:
    assert after(START).num_batches() == 0
    assert after(START, batch(0, 0, 1.0)).num_batches() == 1
    assert after(START, batch(3, 4, 1.0), batch(3, 6, 2.0), batch(4, 0, 3.0)).num_batches() == 7
