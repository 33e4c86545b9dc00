"""What every command shares: where the service is, how results are printed, and what the exit code says.

Exit codes: 0 done or succeeded, 1 failed, 2 usage or refused input, 4 cancelled, 5 timeout, 6 unreachable or
out of order, 7 not allowed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from api.client import ApiError, Client, ClientError, NotAllowedError, UnreachableError, VersionError

EXIT_FAILED, EXIT_USAGE, EXIT_CANCELLED, EXIT_TIMEOUT, EXIT_UNREACHABLE, EXIT_NOT_ALLOWED = 1, 2, 4, 5, 6, 7
EXIT_INTERRUPTED = 130
DEFAULT_URL = "http://127.0.0.1:8000"

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Target:
    """The service a command talks to."""

    url: str
    token: str | None


@dataclass(frozen=True)
class Options:
    """The options that stand before the command's name."""

    url: str | None
    token: str | None
    data: Path


def connection_file(data: Path) -> Path:
    """Return where a service on this machine leaves its address and token."""
    return data / "run" / "connection.json"


def find_target(options: Options) -> Target:
    """Return address and token: as given, else as a local service left them in the data folder."""
    url, token = options.url, options.token
    if url is None or token is None:
        local = _read_connection(connection_file(options.data))
        # A token found on disk goes only to the address it was found with.
        if url is None or url == local.get("url"):
            url = url or local.get("url")
            token = token or local.get("token")
    return Target(url or DEFAULT_URL, token)


def _read_connection(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {key: value for key, value in found.items() if isinstance(value, str)}
        if isinstance(found, dict)
        else {}
    )


@contextmanager
def connected(context: typer.Context) -> Iterator[Client]:
    """Open a client for a command, and turn its failures into a message and an exit code."""
    options = context.find_root().obj
    assert isinstance(options, Options)
    target = find_target(options)
    try:
        with Client(target.url, target.token, on_note=_note) as client:
            yield client
    except VersionError as error:
        fail(str(error), EXIT_USAGE)
    except NotAllowedError as error:
        hint = "" if target.token else "; give a token by --token or TRAINSHED_TOKEN"
        fail(f"not allowed: {error}{hint}", EXIT_NOT_ALLOWED)
    except UnreachableError as error:
        fail(f"{error}; is the service up? (trainshed up)", EXIT_UNREACHABLE)
    except ApiError as error:
        fail(str(error), _exit_of(error), problems=error.errors)
    except TimeoutError as error:
        fail(str(error), EXIT_TIMEOUT)
    except ClientError as error:
        fail(str(error), EXIT_FAILED)


def _note(text: str) -> None:
    err.print(f"trainshed: {text}", markup=False)


def _exit_of(error: ApiError) -> int:
    # 1 says that the job or its data is at fault, which a service out of order must never say.
    if error.status >= 500 or error.status == 429:
        return EXIT_UNREACHABLE
    return EXIT_FAILED if error.code == "DATASET_INVALID" else EXIT_USAGE


def fail(message: str, code: int, *, problems: list[dict[str, Any]] | None = None) -> NoReturn:
    """Print what is wrong and where, and end with an exit code."""
    err.print(f"trainshed: {message}", markup=False)
    for problem in problems or []:
        err.print(f"  {describe_problem(problem)}", markup=False)
    raise typer.Exit(code)


def describe_problem(problem: dict[str, Any]) -> str:
    """Return one line for a problem of a request, a model YAML or a dataset."""
    place = str(problem.get("file") or problem.get("pointer") or "")
    if problem.get("line") is not None:
        place = f"{place}:{problem['line']}" if place else f"line {problem['line']}"
        if problem.get("column") is not None:
            place += f":{problem['column']}"
    text = str(problem.get("message") or problem.get("code") or "")
    value = problem.get("value")
    more = int(problem.get("count") or 1) - 1
    parts = [f"{place}: " if place else "", text, f" [{value}]" if value not in (None, "") else ""]
    return "".join(parts) + (f" (and {more} more)" if more > 0 else "")


def print_json(value: Any) -> None:
    """Print a machine-readable result: one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
