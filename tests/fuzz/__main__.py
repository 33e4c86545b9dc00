"""Fuzz the parsers, guided by coverage: `python -m tests.fuzz [--seconds 60] [name ...]`, or `make fuzz`.

Each target runs in a process of its own, by atheris; inputs that got further and inputs that are findings
are kept below `.cache/fuzz`. Exit 1 if there was a finding.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["yolocore", "worker"]):
    from tests.fuzz.targets import TARGETS

KEPT = Path(".cache/fuzz")
MAX_BYTES = 8192
MEMORY_MB = 2048
INPUT_TIMEOUT_S = 20


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one target in another process; return its exit code."""
    corpus, found = KEPT / name / "corpus", KEPT / name / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    print(f"== {name}: {seconds} s, findings in {found}", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", "--inside", name, "--", f"-max_total_time={seconds}"]
    options = [f"-max_len={MAX_BYTES}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={INPUT_TIMEOUT_S}"]
    quiet = ["-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={found}/", str(corpus)]
    return subprocess.run([*command, *options, *quiet], check=False).returncode


def main() -> int:
    """Fuzz the named targets, all by default; return 1 if one has a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(TARGETS))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    failed = [name for name in options.names or TARGETS if fuzz(name, options.seconds) != 0]
    print(f"fuzz: findings in {', '.join(failed)}" if failed else "fuzz: no finding")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        run = TARGETS[sys.argv[2]].run

        def one_input(data: bytes) -> None:
            run(data)

        atheris.Setup([sys.argv[0], *sys.argv[4:]], one_input)
        atheris.Fuzz()
    sys.exit(main())
