"""Progress bars for transfers: on a terminal only, so that logs of pipelines stay readable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from api.cli.session import err
from api.client.http import Progress as Report


@contextmanager
def transfer_bar(title: str, *, quiet: bool = False) -> Iterator[Report | None]:
    """Yield a callable taking (done, total) bytes, or None where no bar is shown."""
    if quiet or not err.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield report
