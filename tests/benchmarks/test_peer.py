"""What is told of training beside another trainer, and how a program takes turns and tells."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import peer
from benchmarks.bench import Bench
from benchmarks.ours import read_data
from benchmarks.peer_run import Turns
from benchmarks.photographs import photographs

EPOCHS = peer.Epochs(
    train_s={"ours": [10.0, 20.0], "theirs": [20.0, 42.0]},
    epoch_s={"ours": [12.0, 24.0], "theirs": [30.0, 60.0]},
    first_step_s={"ours": 4.0, "theirs": 10.0},
    peak_bytes={"ours": 800_000_000, "theirs": 1_200_000_000},
)


def test_our_network_takes_the_published_operations() -> None:
    assert peer.our_gflops() == pytest.approx(4.5, abs=0.1)


def test_loops_are_compared_pair_by_pair_and_the_heavier_network_is_told() -> None:
    gflops = 2 * peer.our_gflops()
    figures = peer.loop_figures({False: EPOCHS, True: EPOCHS}, gflops=gflops, images=300, work="pictures")
    plain, derived, in_memory, _ = figures
    assert plain.value == pytest.approx(2.05)
    assert plain.shown == "2.05 (20.0 of 9.7 images/s of processor time)"
    assert "2.00 times" in plain.how
    assert "2.00 to 2.10" in plain.how
    assert plain.verdict == "kept"
    assert derived.value == pytest.approx(2.05 / 2)
    assert derived.how.startswith("derived")
    assert plain.name.endswith("no cache")
    assert in_memory.name.endswith("images in memory")


def test_the_rest_of_the_epochs() -> None:
    whole, start, memory = peer.rest_figures(EPOCHS)
    assert (whole.value, start.value, memory.value) == (2.5, 2.5, 1.5)
    assert memory.shown == "1.50 (800 of 1.2e+03 MB RSS)"


def test_loaders_have_a_bound_with_images_in_memory() -> None:
    loading = peer.Loading({"ours": [300.0, 330.0], "theirs": [100.0, 110.0]}, 7.0)
    in_memory, plain = peer.loader_figures({True: loading, False: loading}, 640)
    assert (in_memory.value, in_memory.verdict) == (3.0, "kept")
    assert (plain.value, plain.verdict) == (3.0, "-")


def test_without_the_other_trainer_a_run_is_complete(tmp_path: Path) -> None:
    assert not peer.is_ready(tmp_path)
    figure = peer.ABSENT
    assert "make bench-peer" in figure.shown
    assert figure.verdict == "-"


def test_both_trainers_are_given_lists_of_a_part(tmp_path: Path) -> None:
    given = photographs(tmp_path, quick=True).data_yaml
    written = peer.with_lists(given, tmp_path, num_train=5, num_val=100)
    assert yaml.safe_load(written.read_text())["path"] == str(tmp_path)
    data, whole = read_data(written), read_data(given)
    assert (len(data.train), len(data.val)) == (5, len(whole.val))
    assert data.names == whole.names
    assert all(len(sample.rows) for sample in data.train)


@contextmanager
def told_by(act: Any) -> Iterator[list[dict[str, float]]]:
    """Yield what is told while `act` has the turns."""
    reading, writing = os.pipe()
    act(Turns(writing))
    os.close(writing)
    with os.fdopen(reading) as answers:
        yield [json.loads(line) for line in answers]


def test_the_first_step_is_told_once() -> None:
    def act(turns: Turns) -> None:
        turns.begin()
        turns.stepped()
        turns.stepped()
        turns.trained()

    with told_by(act) as told:
        assert [sorted(each) for each in told] == [["first_step_at", "start_s"]]


@pytest.mark.slow
def test_a_program_takes_turns(tmp_path: Path) -> None:
    data = photographs(tmp_path, quick=True).data_yaml
    program = peer.Program("ours", "epochs", peer.QUICK.options(data, 3, ram=False), Bench(tmp_path, True))
    try:
        first = program.answer("first_step_at")
        assert first["first_step_at"] > program.started_at
        turns = [program.answer("epoch_s")]
        program.go()
        turns.append(program.answer("epoch_s"))
        assert all(0 < turn["train_s"] < turn["epoch_s"] for turn in turns)
        assert program.peak_bytes > 100_000_000
        program.go()
        with pytest.raises(OSError, match="ended early"):  # the last epoch has nothing behind it
            program.answer("epoch_s")
    finally:
        program.end()
