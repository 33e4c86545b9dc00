"""What is made of the programs' answers; and, slowly, that each program answers when little is asked."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import busy, footprint, growth, loader, parts, training
from benchmarks.bench import PEER, Bench, Measure
from benchmarks.run import ALONE
from benchmarks.stats import Curve, ratio_figure, targets

QUICK: dict[str, tuple[Measure, int]] = {
    "training": (training.measure, 3),
    "loader": (loader.measure, 7),
    "loss": (parts.measure_loss, 2),
    "optimizer": (parts.measure_optimizer, 1),
    "scoring": (parts.measure_scoring, 3),
    "judging": (parts.measure_judging, 3 if (PEER / ".ready").exists() else 1),
    "footprint": (footprint.measure, 3),
    "growth": (growth.measure, 12),
    "busy": (busy.measure, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_quick_form_gives_figures(name: str, tmp_path: Path) -> None:
    measure, count = QUICK[name]
    assert ALONE[name] is measure
    found = measure(Bench(tmp_path, quick=True))
    assert len(found) == len({one.name + (one.work_unit if isinstance(one, Curve) else "") for one in found})
    assert len(found) == count
    for one in found:
        values = [point.cost for point in one.points] if isinstance(one, Curve) else [one.value]
        assert all(value is not None and math.isfinite(value) for value in values)
        assert one.name and one.how


def test_ratio_of_costs() -> None:
    floor, aims = targets(1.5, 2, 3.5)
    figure = ratio_figure("x", [1.0, 2.0, 4.0], [2.0, 2.0, 12.0], floor, "how")
    assert (figure.value, figure.shown, figure.verdict) == (2.0, "2.00x", "kept")
    assert figure.how == "median of 3 pairs in turn, 1.00 to 3.00; how"
    assert aims == "goal 2x, moonshot 3.5x"
    assert targets(50, 90)[1] == "goal 90x"


def test_training_figures_divide_whole_epochs() -> None:
    seconds = {
        "ours train": [10.0, 10.0],
        "ours val": [2.0, 2.0],
        "textbook train": [14.0, 15.0],
        "textbook val": [4.0, 5.0],
    }
    loop, epoch, val = training.figures({"seconds": seconds, "images": 200}, "there")
    assert (loop.shown, epoch.shown, val.shown) == ("1.45x", "1.58x", "2.25x")
    assert (loop.verdict, epoch.verdict, val.verdict) == ("kept", "kept", "-")
    assert "20.0 against 13.8 images a processor second; there; goal 1.45x" in loop.how


@pytest.mark.parametrize(("imgsz", "bounds"), [(320, 0), (640, 5)])
def test_loader_is_judged_at_the_size_of_its_targets(imgsz: int, bounds: int) -> None:
    ram, none = ("ours ram", "fast ram", "textbook ram"), ("ours none", "fast none", "textbook none")
    taken = ([1.0], [0.5], [2.5], [2.0], [1.5], [9.0], [1.0], [0.6])
    seconds = dict(zip((*ram, *none, "threads 1", "threads 2"), taken, strict=True))
    found = loader.figures({"seconds": seconds, "images": 100}, imgsz, "there")
    assert [figure.shown for figure in found] == [
        "2.50x",
        "5.00x",
        "9.00x",
        "18.00x",
        "4.50x",
        "6.00x",
        "1.67x",
    ]
    assert sum(figure.bound is not None for figure in found) == bounds


def test_scoring_is_told_by_picture() -> None:
    seconds = {"ours": [0.02], "textbook": [0.2]}
    answer = {"seconds": seconds, "pictures": 4, "candidates": 9300.0, "map50": 0.2}
    figure = parts.scoring_figure("immature", answer)
    assert figure.verdict == "kept"
    assert "5.00 ms against 50.00 ms an image" in figure.how


def test_operations_have_bounds() -> None:
    found = footprint.figures({"kernels": 748, "waits": 2, "textbook_kernels": 2619, "textbook_waits": 9})
    assert [(figure.shown, figure.verdict) for figure in found] == [("748", "kept"), ("2", "missed")]


def test_only_ours_is_told_how_to_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path, quick=True)
    ours, textbook = busy.environment(bench, "ours"), busy.environment(bench, "textbook")
    assert (ours["OMP_WAIT_POLICY"], ours["OMP_NUM_THREADS"]) == ("PASSIVE", "2")
    assert not {"OMP_WAIT_POLICY", "OMP_NUM_THREADS"} & set(textbook)
