"""Measures each trick of training on and off: `benchmarks.tricks [NAME ...] [--quick] [--accuracy]`.

Prints Markdown tables. A whole run at full size also writes them into docs/training.md, between the comments
that mark their places. `--scores FILE` keeps the scores of `--accuracy`, so that an ended series goes on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import tricks_data, tricks_network
from benchmarks.machine import load, setting
from benchmarks.ours import CPU
from benchmarks.sample import write_folder
from benchmarks.tricks_accuracy import (
    BASE,
    EARLY,
    QUICK,
    SETTLED,
    VARIANTS,
    Scores,
    Series,
    train_variants,
)
from benchmarks.tricks_network import Sizes
from benchmarks.tricks_report import Compared, Outcome, accuracy_table, placed, times_table
from yolocore.train.numerics import numerics

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"
NAMES = (*tricks_network.MEASURES, *tricks_data.MEASURES)
FULL = Sizes(pairs=3, imgsz=128, batch=4)
SMALL = Sizes(pairs=1, imgsz=64, batch=4)


def measure(names: Sequence[str], sizes: Sizes) -> list[Compared]:
    """Measure the tricks of these names on one thread, each beside its absence."""
    found: list[Compared] = []
    with numerics(1, CPU), tempfile.TemporaryDirectory(prefix="tricks-") as folder:
        data_yaml = write_folder(Path(folder), tricks_data.recipe(sizes))
        for name in (name for name in NAMES if name in names):
            began = time.monotonic()
            if name in tricks_network.MEASURES:
                found += tricks_network.MEASURES[name](sizes)
            else:
                found += tricks_data.MEASURES[name](sizes, data_yaml)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            print(times_table(found).splitlines()[-1], file=sys.stderr, flush=True)
    return found


def judge(scores: Scores, series: Series, minutes: float) -> list[Outcome]:
    """Train the variants that have no score yet, for some minutes, and return the scores of all."""
    variants = VARIANTS[:2] if series is QUICK else VARIANTS
    train_variants(scores, variants, series=series, until=time.monotonic() + 60 * minutes)
    return [Outcome(one.trick, one.changed, scores.of(one)) for one in (BASE, *VARIANTS)]


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write what was measured at full size into the page; return the exit code."""
    options = parse_arguments(arguments)
    before, blocks = load(), {}
    if options.names or not (options.accuracy or options.early):
        found = measure(options.names or NAMES, SMALL if options.quick else FULL)
        blocks["tricks, time"] = times_table(found)
    if options.accuracy or options.early:
        series = QUICK if options.quick else EARLY if options.early else SETTLED
        with tempfile.TemporaryDirectory(prefix="tricks-") as folder:
            scores = Scores(options.scores or Path(folder) / "scores.jsonl")
            outcomes = judge(scores, series, options.minutes)
        blocks["tricks, early" if options.early else "tricks, accuracy"] = accuracy_table(outcomes)
    where = "\n".join(f"- {line}" for line in setting(before).lines())
    for block, shown in blocks.items():
        print(f"{shown}\n")
        if not options.quick and not options.names:
            page = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(placed(page, block, f"\n{shown}\n\n{where}\n"), encoding="utf-8")
    print(where)
    return 0


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with code 2 where it is wrong, as argparse does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tricks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--accuracy", action="store_true", help="short trainings in place of times")
    parser.add_argument("--early", action="store_true", help="the same, and far from their end")
    parser.add_argument("--scores", type=Path, help="keep the scores in this file and go on with it")
    parser.add_argument("--minutes", type=float, default=1e4, help="begin no training after so long")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
