"""A child's side of its lifeline: standard input, whose end means that the supervisor is gone.

A program that stands by also gets its order through it, as one line. It must not know what the program does.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

STDIN, STDOUT, STDERR = 0, 1, 2
STANDBY = "--standby"  # a program's argument instead of its folder


def _ignore(line: bytes) -> None:
    """Take a line that nobody waits for."""


def hold_lifeline(told: Callable[[bytes], None] = _ignore) -> None:
    """End the whole process group as soon as standard input ends; a terminal is no lifeline.

    `told` gets each whole line that comes in before that, without its end, from a thread.
    """
    if os.isatty(STDIN):
        return
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    threading.Thread(target=_watch, args=(told,), name="lifeline", daemon=True).start()


def _watch(told: Callable[[bytes], None]) -> None:
    rest = b""
    while True:
        try:
            data = os.read(STDIN, 4096)
        except OSError:
            break
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            told(line)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def order_line(folder: Path, log: Path) -> bytes:
    """Return the line by which a program that stands by is told its folder and where its output goes."""
    return json.dumps({"folder": str(folder), "log": str(log)}).encode() + b"\n"


def take_over(line: bytes) -> Path:
    """Work from now on in the folder that an order names, writing into its log; return the folder.

    Raises OSError if the log cannot be opened, ValueError or KeyError if the line is no order.
    """
    order = json.loads(line)
    folder, log = Path(order["folder"]), os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, STDOUT)
    os.dup2(log, STDERR)
    os.close(log)
    os.chdir(folder)
    return folder
