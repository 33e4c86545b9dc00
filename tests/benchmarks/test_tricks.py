"""The tricks' tables: pure text, rewritten models, kept scores, and the program itself at its smallest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tricks import NAMES, main, parse_arguments
from benchmarks.tricks_accuracy import BASE, MODEL, SETTLED, VARIANTS, Scores, text_of, values_of
from benchmarks.tricks_report import Compared, Outcome, accuracy_table, placed, times_table
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.config import parse_config
from yolocore.spec.plan import plan_architecture


def test_a_comparison_is_the_median_of_its_pairs() -> None:
    one = Compared("trick", "with", "without", "a step", [0.010, 0.030, 0.020], [0.020, 0.030, 0.080])
    cells = one.cells()
    assert cells[:3] == ("trick", "with: 20.0 ms", "without: 30.0 ms")
    assert cells[3].startswith("0.50 (") and cells[4] == "a step"
    assert times_table([one]).count("\n") == 2


def test_scores_are_compared_seed_by_seed() -> None:
    base = Outcome("base", "no change", {0: (0.5, 0.3), 1: (0.7, 0.5)})
    better = Outcome("more", "on", {0: (0.6, 0.4)})
    untried = Outcome("later", "on", {})
    lines = accuracy_table([base, better, untried]).splitlines()
    assert lines[2] == "| base | no change | 0.600 | 0.400 | 0.500 to 0.700 | 2 |"
    assert lines[3] == "| more | on | 0.600 | 0.400 | +0.100 | 1 |"
    assert len(lines) == 4


def test_figures_take_the_place_of_older_ones() -> None:
    page = "a\n<!-- figures: x -->\nold\n<!-- end of figures: x -->\nb\n"
    assert placed(page, "x", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="no place for the figures y"):
        placed(page, "y", "new")


def test_every_variant_is_a_run_that_can_be_done() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    for variant in (BASE, *VARIANTS):
        parse_config(values_of(variant, series=SETTLED, seed=0))
        plan_architecture(parse_architecture(text_of(variant)), imgsz=(96, 96))
    assert text_of(BASE) == MODEL.read_text(encoding="utf-8")


def test_scores_are_kept_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    Scores(path).add(BASE, 3, (0.5, 0.25))
    assert Scores(path).of(BASE) == {3: (0.5, 0.25)}
    assert json.loads(path.read_text())["seed"] == 3


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["colour"])
    assert "there is no colour" in capsys.readouterr().err


def test_the_program_measures_at_its_smallest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["average", "mosaic", "--quick"]) == 0
    shown = capsys.readouterr().out
    assert "| EMA |" in shown and "| mixup |" in shown


@pytest.mark.slow
def test_all_of_it_at_its_smallest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*NAMES, "--quick"]) == 0
    assert main(["--quick", "--accuracy", "--scores", str(tmp_path / "scores.jsonl")]) == 0
    assert "| base |" in capsys.readouterr().out
