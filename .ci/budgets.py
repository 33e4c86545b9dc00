"""The size budgets: files of at most 400 lines, functions of at most 60; the training loop's file 300.

A file or function over its budget has more than one reason to change. Exits 1 and names each offender.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("api", "worker", "yolocore", "examples", "benchmarks")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
OWN_LIMITS = {"yolocore/train/trainer.py": 300}
# A migration is a list of tables: it has one reason to exist and none to change.
EXEMPT_PARTS = {"node_modules", "versions"}


def overruns(path: Path) -> list[str]:
    """Return a line for the file, and for each of its functions, that is over budget."""
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    limit = OWN_LIMITS.get(name, MAX_FILE_LINES)
    lines = text.count("\n")
    found = [f"{name}: {lines} lines, the limit is {limit}"] if lines > limit else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{name}:{node.lineno}: {node.name} has {length} lines, the limit is 60")
    return found


def main() -> int:
    """Check every Python file of the project outside the tests."""
    files = [
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not EXEMPT_PARTS & set(path.parts)
    ]
    found = [line for path in files for line in overruns(path)]
    print("\n".join(found) or f"{len(files)} files within budget")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
