"""Measures figures against their bounds: `python -m benchmarks.run [NAME ...] [--quick | --update]`.

Prints one table. A whole run at full size also writes README.md beside this file, and `--update` its rows of
what is named. It only knows what there is to measure and in which order: the stack is looked at while it is
fresh, and once more when it has worked.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from api.client import ClientError
from benchmarks import (
    busy,
    calm,
    footprint,
    growth,
    idle,
    imports,
    intake,
    live,
    loader,
    parts,
    peer,
    step,
    streaming,
    training,
    upload,
)
from benchmarks.bench import Bench, Measure
from benchmarks.machine import load, setting
from benchmarks.report import readme, text_curves, text_table, updated
from benchmarks.stats import Curve, Figure
from examples.service import LocalService, ServiceError

ALONE: Mapping[str, Measure] = {
    "import": imports.measure,
    "streaming": streaming.measure,
    "step": step.measure,
    "training": training.measure,
    "loader": loader.measure,
    "loss": parts.measure_loss,
    "optimizer": parts.measure_optimizer,
    "scoring": parts.measure_scoring,
    "judging": parts.measure_judging,
    "footprint": footprint.measure,
    "growth": growth.measure,
    "busy": busy.measure,
    "peer": peer.measure,
    "intake": intake.measure,
}
WITH_SERVICE: Mapping[str, Measure] = {
    "idle": idle.measure,
    "upload": upload.measure,
    "live": live.measure,
    "calm": calm.measure,
    "after": idle.measure_after,
}
NAMES = (*ALONE, *WITH_SERVICE)
README = Path(__file__).with_name("README.md")
EXIT_NOT_MEASURED, EXIT_INTERRUPTED = 1, 130


def measure(names: Sequence[str], folder: Path, *, quick: bool) -> list[Figure | Curve]:
    """Take the figures of these names; one that fails is a line of its own and stops no other."""
    figures: list[Figure | Curve] = []
    for name in (name for name in ALONE if name in names):
        figures += _attempt(name, ALONE[name], Bench(folder, quick))
    wanted = [name for name in WITH_SERVICE if name in names]
    if wanted:
        with LocalService(folder / "service") as service:
            for name in wanted:
                figures += _attempt(name, WITH_SERVICE[name], Bench(folder, quick, service))
    return figures


def _attempt(name: str, measurement: Measure, bench: Bench) -> Sequence[Figure | Curve]:
    began = time.monotonic()
    print(f"{name} ...", end=" ", flush=True)
    found: Sequence[Figure | Curve]
    try:
        found = measurement(bench)
    except (OSError, ClientError, subprocess.SubprocessError) as error:
        found = [Figure(name, None, type(error).__name__, None, str(error))]
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    return found


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with code 2 where it is wrong, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Measure and print figures."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--update", action="store_true", help="write the rows of what is named anew")
    options = parser.parse_args(arguments)
    if options.update and (options.quick or not options.names):
        parser.error("--update wants names, and full sizes")
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write the README of a whole run; return the exit code."""
    options = parse_arguments(arguments)
    # Set even where a script's background job inherited "ignore": an interrupt must always clean up.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = load()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
            found = measure(options.names or NAMES, Path(folder), quick=options.quick)
    except KeyboardInterrupt:
        print("interrupted; nothing is left running")
        return EXIT_INTERRUPTED
    except ServiceError as error:
        print(f"the service did not start: {error}")
        return EXIT_NOT_MEASURED
    where = setting(before)
    figures = [one for one in found if isinstance(one, Figure)]
    curves = [one for one in found if isinstance(one, Curve)]
    tables = [text_table(figures)] * bool(figures) + [text_curves(curves)] * bool(curves)
    print("", "\n\n".join(tables), "", *where.lines(), sep="\n")
    complete = all(figure.verdict != "not measured" for figure in figures)
    if complete and not options.quick and not options.names:
        README.write_text(readme(figures, where, NAMES, curves), encoding="utf-8")
        print(f"written: benchmarks/{README.name}")
    if complete and options.update:
        text = updated(README.read_text(encoding="utf-8"), figures, where, options.names)
        README.write_text(text, encoding="utf-8")
        print(f"written: rows of benchmarks/{README.name}")
    return 0 if complete else EXIT_NOT_MEASURED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
