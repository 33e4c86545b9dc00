"""A Valkey of our own for as long as a block lasts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.stack.broker import answers, find_binary, server_command

_UP_WITHIN_S = 20.0


@contextmanager
def running_broker(folder: Path) -> Iterator[str]:
    """Start a server in a folder and yield its address; raises OSError where it does not come up."""
    folder.mkdir()
    socket = folder / "bench.sock"
    url = f"unix://{socket}"
    server = subprocess.Popen(
        server_command(find_binary(), socket, folder), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + _UP_WITHIN_S
        while not answers(url):
            if server.poll() is not None or time.monotonic() > end:
                raise OSError("the Valkey of this measurement did not come up")
            time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(10)
