"""Print what extras of the project depend on, one requirement a line, for `pip install -r`.

An image installs from this list instead of from the project: the layer, several GB of it for a worker, is
then kept for as long as the list is the same, whatever else changes in the project. Reads `pyproject.toml` in
the working folder; knows nothing of what the packages are.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: Sequence[str]) -> Iterator[str]:
    """Yield the requirements of a `[project]` table and of extras, and of the extras these name."""
    own = re.compile(re.escape(project["name"]) + r"\[([\w,-]+)\]$")
    yield from project["dependencies"]
    waiting = list(extras)
    for extra in waiting:
        for requirement in project["optional-dependencies"][extra]:
            named = own.match(requirement)
            if named is None:
                yield requirement
            else:
                waiting += [name for name in named[1].split(",") if name not in waiting]


if __name__ == "__main__":
    table = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    print("\n".join(sorted(set(requirements(table, sys.argv[1:])))))
