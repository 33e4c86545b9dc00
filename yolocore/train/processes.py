"""Processes of one run, a rank each: how they start, meet, and end together.

It must not know what a rank does: that is the `target` it is given. Rank 0 may be the calling process itself
(`lead`), so that what cannot be pickled (callbacks, open files) stays there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.multiprocessing as torch_mp

from yolocore.errors import CoreError
from yolocore.train.distributed import Group

Target = Callable[..., None]

GRACE_S = 10.0
READY = "ready"
HELD = (signal.SIGINT, signal.SIGTERM)


class RankError(RuntimeError):
    """A rank ended without a named error: an error of ours, or a process that was killed."""


def spawn(world_size: int, target: Target, args: Sequence[Any] = (), *, device: str = "cpu") -> None:
    """Run `target(group, *args)` in `world_size` processes and wait for all; all of it must be picklable.

    If one fails the others are killed. Raises the first CoreError of a rank as it was; RankError otherwise.
    """
    with _started(range(world_size), world_size, target, args, device) as children:
        children.finish()


@contextmanager
def lead(
    world_size: int, target: Target, args: Sequence[Any] = (), *, device: str = "cpu"
) -> Iterator[Group]:
    """Be rank 0 inside; ranks from 1 on run `target(group, *args)` beside, and are waited for at the end.

    If the body raises, the others are killed. If one of them fails, the body meets an error at its next
    exchange; that one's CoreError comes out in its place, or RankError.
    """
    with _started(range(1, world_size), world_size, target, args, device) as children:
        group = None
        try:
            children.wait_until_ready()
            group = children.meeting.join(0)
            with _aborting(group, children):
                yield group
            group.close()
            children.finish()
        except Exception as error:
            first = children.first_failure(_Failure(0, time.monotonic(), error))
            children.kill()
            if first.error is error:
                raise
            first.throw()
        finally:
            children.kill()
            if group is not None:
                group.abort()


@dataclass(frozen=True)
class _Failure:
    """What ended a rank; `error` is kept if it has a name or is the caller's own, else `text` tells it."""

    rank: int
    at_s: float
    error: Exception | None
    text: str = ""
    is_silent: bool = False

    @property
    def order(self) -> tuple[bool, bool, float]:
        """Sort by what explains most: a named error, a death without a word, then what was told first."""
        return not isinstance(self.error, CoreError), not self.is_silent, self.at_s

    def throw(self) -> NoReturn:
        told = RankError(f"rank {self.rank}: {self.text}")
        if self.error is None:
            raise told
        raise self.error from told


@dataclass(frozen=True)
class _Meeting:
    """Where and on what the ranks of one run come together."""

    path: Path
    world_size: int
    device: str

    def device_of(self, rank: int) -> torch.device:
        return torch.device(self.device, rank) if self.device == "cuda" else torch.device(self.device)

    def join(self, rank: int) -> Group:
        return Group(rank, self.world_size, self.device_of(rank), self.path)


@dataclass
class _Child:
    rank: int
    process: SpawnProcess
    reports: Connection
    is_ready: bool = False
    is_gone: bool = False
    failure: _Failure | None = None


class _Children:
    """The processes of some ranks, and what they report: that they are ready, and what ended them."""

    def __init__(self, ranks: Sequence[int], meeting: _Meeting, target: Target, args: Sequence[Any]) -> None:
        self.meeting = meeting
        self._reaping = threading.Lock()
        self._children: list[_Child] = []
        try:
            for rank in ranks:
                self._children.append(_start(rank, meeting, target, args))
        except BaseException:
            self.kill()
            raise

    def wait_until_ready(self) -> None:
        """Wait until all have loaded what they need; raises what ended one of them before."""
        while not all(child.is_ready for child in self._children):
            self._hear(None)
            self._raise_failure()

    def finish(self) -> None:
        """Wait until all are gone; raises what ended one of them."""
        while not all(child.is_gone for child in self._children):
            self._hear(None)
            self._raise_failure()

    def wait_for_failure(self, stop: Connection) -> bool:
        """Wait until one has died or `stop` can be read; tell whether one has died. Takes no reports."""
        sentinels = [child.process.sentinel for child in self._children]
        while sentinels:
            ready = wait([*sentinels, stop])
            if stop in ready:
                return False
            sentinels = [each for each in sentinels if each not in ready]
            if any(self._exit_code(child) for child in self._children if child.process.sentinel in ready):
                return True
        return False

    def first_failure(self, own: _Failure | None = None) -> _Failure:
        """Return the failure that explains the others.

        A broken connection is told by all ranks but the one that broke it: unless there is a named error,
        the others get a little time to say theirs.
        """
        until = time.monotonic() + GRACE_S
        is_named = own is not None and not isinstance(own.error, RuntimeError)
        self._hear(0)
        while not is_named and not all(child.is_gone for child in self._children):
            if not self._hear(max(until - time.monotonic(), 0)):
                break
            is_named = any(isinstance(each.error, CoreError) for each in self._failures())
        known = [*self._failures(), *([own] if own else [])]
        return min(known, key=lambda each: each.order)

    def kill(self) -> None:
        """End all that are still there."""
        for child in self._children:
            if not child.is_gone:
                child.process.kill()
        for child in self._children:
            self._exit_code(child)
            child.reports.close()
            child.is_gone = True

    def _failures(self) -> list[_Failure]:
        return [child.failure for child in self._children if child.failure is not None]

    def _raise_failure(self) -> None:
        if self._failures():
            self.first_failure().throw()

    def _hear(self, timeout_s: float | None) -> bool:
        """Take what has been reported within this time; tell whether anything was."""
        talking = {child.reports: child for child in self._children if not child.is_gone}
        ready = wait(list(talking), timeout_s)
        for reports in ready:
            assert isinstance(reports, Connection)
            self._take(talking[reports])
        return bool(ready)

    def _exit_code(self, child: _Child) -> int:
        """Return the exit code of a process that has ended or is about to; two threads may ask."""
        with self._reaping:
            child.process.join()
            code = child.process.exitcode
        assert code is not None
        return code

    def _take(self, child: _Child) -> None:
        try:
            message = child.reports.recv()
        except (EOFError, OSError):  # its end is the end of the process
            code = self._exit_code(child)
            child.is_gone = True
            if code and child.failure is None:
                text = f"the process ended with exit code {code}"
                child.failure = _Failure(child.rank, time.monotonic(), None, text, is_silent=True)
            return
        if message == READY:
            child.is_ready = True
        else:
            assert isinstance(message, _Failure)
            child.failure = message


@contextmanager
def _started(
    ranks: Sequence[int], world_size: int, target: Target, args: Sequence[Any], device: str
) -> Iterator[_Children]:
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        children = _Children(ranks, _Meeting(Path(folder) / "meeting", world_size, device), target, args)
        try:
            yield children
        finally:
            children.kill()


def _start(rank: int, meeting: _Meeting, target: Target, args: Sequence[Any]) -> _Child:
    reports, reporting = multiprocessing.Pipe(duplex=False)
    process = torch_mp.get_context("spawn").Process(
        target=_be_rank,
        args=(rank, meeting, reporting, target, tuple(args)),
        name=f"rank-{rank}",
        daemon=True,
    )
    with _signals_held():
        process.start()
    reporting.close()
    return _Child(rank, process, reports)


def _be_rank(rank: int, meeting: _Meeting, reports: Connection, target: Target, args: Sequence[Any]) -> None:
    """Run a rank in a process of its own.

    Interrupts and terminations are rank 0's to answer, which tells the others; they die with their parent.
    """
    for number in HELD:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, name="lifeline", daemon=True).start()
    code = 0
    try:
        device = meeting.device_of(rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        reports.send(READY)
        group = meeting.join(rank)
        target(group, *args)
        group.close()
    except Exception as error:  # noqa: BLE001 - the top of a process
        named = error if isinstance(error, CoreError) else None
        reports.send(_Failure(rank, time.monotonic(), named, traceback.format_exc()))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: no thread or lost connection may keep a rank that has nothing left to do


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _aborting(group: Group, children: _Children) -> Iterator[None]:
    """Free this process from a kernel that waits for a rank that has died; gloo notices by itself."""
    if group.device.type != "cuda":
        yield
        return
    stop, stopping = multiprocessing.Pipe(duplex=False)

    def watch() -> None:
        if children.wait_for_failure(stop):
            group.abort()

    watcher = threading.Thread(target=watch, name="rank-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopping.close()
        watcher.join()
        stop.close()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep the terminal's signals from a process that is too young to ignore them; they come afterwards."""
    resource_tracker.ensure_running()  # which would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
