"""`trainshed gc`: free disk space on the machine the service's data folder is on."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from api.cli.session import Options


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Free the disk space of what nobody needs: old job files, data of deleted datasets, leftovers."""
    found = context.find_root().obj
    assert isinstance(found, Options)
    arguments = ["--data", str(found.data)]
    arguments += ["--dry-run"] if dry_run else []
    arguments += ["--json"] if as_json else []
    # In place of this process: the command line itself knows no book.
    os.execv(sys.executable, [sys.executable, "-m", "api.gc", *arguments])
