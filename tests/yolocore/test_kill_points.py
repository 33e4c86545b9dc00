"""A run that is killed at any point and resumed ends with the weights of one that was left in peace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.support.kills import MODES, POINTS, TOLD
from tests.support.runs import do_run, newest_checkpoint, request, weights_hash
from tests.support.shapes import write_shapes
from yolocore.train.checkpoint import checkpoints_in, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
WRITING = (
    "in the middle of writing a checkpoint",
    "before a checkpoint gets its name",
    "before a checkpoint is told",
)
CASES: dict[str, tuple[str, ...]] = {
    "fp32": tuple(POINTS),
    "fp16": (
        *("in mid-accumulation", "between a step and its average", "in validation"),
        *("between validation and checkpoint", "before a checkpoint gets its name"),
    ),
    "background": ("in mid-accumulation", *WRITING),
}
Whole = Callable[[str], Path]
Kill = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def whole(data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The folder of a run that was left in peace, for each mode."""

    @cache
    def run(precision: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        do_run(request(folder, data_yaml, precision=precision), background_checkpoints=False)
        return folder

    return lambda mode: run(MODES[mode][0])


@pytest.fixture(scope="module")
def killed(data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kill]:
    """Kills a run of a mode at a point, once, and returns its folder."""
    root = tmp_path_factory.mktemp("killed")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.kills", str(root), str(data_yaml)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:

        @cache
        def kill(mode: str, point: str) -> Path:
            assert program.stdin is not None and program.stdout is not None
            program.stdin.write(f"{mode}/{point}\n")
            program.stdin.flush()
            assert int(program.stdout.readline()) in (signal.SIGKILL, signal.SIGXFSZ)
            return root / mode / point

        yield kill


def go_on(folder: Path, data_yaml: Path, mode: str, checkpoint: Path | None) -> None:
    """Do what is left of a run, in its own folder; from the start if it left no checkpoint."""
    do_run(replace(request(folder, data_yaml, precision=MODES[mode][0]), resume=checkpoint))


def assert_same_end(folder: Path, whole: Path) -> None:
    assert weights_hash(newest_checkpoint(folder)) == weights_hash(newest_checkpoint(whole))
    for name in ("best.pt", "last.pt"):
        assert weights_hash(folder / "artifacts" / name) == weights_hash(whole / "artifacts" / name)
    table = Path("artifacts") / "results.csv"
    assert (folder / table).read_text() == (whole / table).read_text()


@pytest.mark.parametrize(("mode", "point"), [(mode, point) for mode in CASES for point in CASES[mode]])
def test_a_run_killed_anywhere_ends_with_the_same_weights(
    killed: Kill, whole: Whole, data_yaml: Path, tmp_path: Path, mode: str, point: str
) -> None:
    folder = Path(shutil.copytree(killed(mode, point), tmp_path / "run"))
    found = checkpoints_in(folder / "checkpoints")
    assert bool(found) == (point != "in the first batch")
    go_on(folder, data_yaml, mode, found[-1] if found else None)
    assert_same_end(folder, whole(mode))
    assert not list(folder.rglob("*.part"))  # what was half written went as the run went on


@pytest.mark.parametrize("mode", ["fp32", "background"])
def test_a_checkpoint_nobody_was_told_of_does_no_harm(
    killed: Kill, whole: Whole, data_yaml: Path, tmp_path: Path, mode: str
) -> None:
    folder = Path(shutil.copytree(killed(mode, "before a checkpoint is told"), tmp_path / "run"))
    told = [folder / line for line in (folder / TOLD).read_text().splitlines()]
    found = checkpoints_in(folder / "checkpoints")
    assert found[:-1] == told  # it is there, whole, but the supervisor knows only the one before
    go_on(folder, data_yaml, mode, told[-1])
    assert_same_end(folder, whole(mode))


@pytest.mark.parametrize("mode", ["fp32", "fp16"])
def test_the_points_are_what_they_are_called(killed: Kill, mode: str) -> None:
    unstepped = load_checkpoint(newest_checkpoint(killed(mode, "in mid-accumulation")))
    assert unstepped.gradients and unstepped.position.last_step < 8
    assert bool(unstepped.scaler) == (mode == "fp16")
    validating = load_checkpoint(newest_checkpoint(killed(mode, "in validation")))
    assert (validating.position.epoch, validating.position.phase) == (1, "validate")


def test_half_a_checkpoint_and_one_without_its_name_are_what_they_are_called(killed: Kill) -> None:
    sizes = [part.stat().st_size for point in WRITING[:2] for part in (killed("fp32", point)).rglob("*.part")]
    assert sizes[0] == 20_000 < sizes[1]
