"""The way to stop a child: say it in stop.json, send SIGTERM, wait, kill the group.

It must not know why the child shall stop nor what happens to its job afterwards.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import structlog

from worker.child import Child
from worker.outcome import Wish, stronger

_LOG = structlog.get_logger(__name__)
# Nothing is kept of a cancelled run, so there is little to wait for.
_CANCEL_GRACE_S = 10.0
# The part of the grace in which a full disk may empty, so that the child is told what it is stopped for.
_WRITING_SHARE = 0.25


class StopLadder:
    """Takes one child down step by step; asking again for less changes nothing.

    Where stop.json cannot be written, SIGTERM goes out without it after a while: a child that is not told
    what for takes it as draining.
    """

    def __init__(self, child: Child, folder: Path, *, grace_s: float) -> None:
        self._child = child
        self._folder = folder
        self._grace_s = grace_s
        self._deadline: float | None = None
        self._write_until: float | None = None
        self.asked: Wish | None = None

    def ask(self, wish: Wish | None) -> None:
        """Ask the child to stop for `wish`, unless it was already asked for that or for more."""
        strongest = stronger(self.asked, wish)
        if strongest is None or strongest == self.asked:
            return
        self.asked = strongest
        grace_s = min(self._grace_s, _CANCEL_GRACE_S) if strongest == "cancel" else self._grace_s
        deadline = time.monotonic() + grace_s
        # A second wish never buys more time.
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        # Without its file a cancelled child may write a checkpoint too many, which is no reason to wait.
        patience_s = 0.0 if strongest == "cancel" else grace_s * _WRITING_SHARE
        self._write_until = time.monotonic() + patience_s
        self._tell()

    def step(self) -> None:
        """Tell the child what it could not be told yet; kill the group once the grace is over."""
        if self._write_until is not None:
            self._tell()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._child.kill()

    def _tell(self) -> None:
        assert self._deadline is not None and self._write_until is not None, "asked before"
        deadline = time.time() + self._deadline - time.monotonic()
        try:
            write_json(self._folder / "stop.json", {"kind": self.asked, "deadline": deadline})
        except OSError as error:
            if time.monotonic() < self._write_until:
                return
            _LOG.warning("stop.json cannot be written", folder=str(self._folder), error=str(error))
        self._write_until = None
        self._child.ask_to_stop()


def write_json(path: Path, content: object) -> None:
    """Write a JSON file so that a reader sees all of it or nothing."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def read_json(path: Path) -> object | None:
    """Return the content of a JSON file, None if there is none or it cannot be read."""
    try:
        content: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content
