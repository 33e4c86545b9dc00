"""The journal of an attempt: events in, one JSON line each out, without ever making the loop wait.

A thread writes every 200 ms; batch events that meet in between become one. `seq` counts the lines that
enter the file, so it has no gaps. It must not know torch, and not what becomes of the file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from yolocore.spec.events import BatchDone, Log, LossParts, System, TrainEvent, Warned, encode_line

FLUSH_S = 0.2
MAX_PENDING = 10_000


def merge(first: BatchDone, second: BatchDone) -> BatchDone:
    """Return one event for two that follow each other: means of the figures, the place of the second."""

    def mean(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else (a + b) / 2

    loss = LossParts(
        box=mean(first.loss.box, second.loss.box),
        obj=mean(first.loss.obj, second.loss.obj),
        cls=mean(first.loss.cls, second.loss.cls),
    )
    return second.model_copy(
        update={"loss": loss, "images_per_s": (first.images_per_s + second.images_per_s) / 2}
    )


class JournalWriter:
    """Appends events to a file from a thread; `emit` only takes a lock."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, flush_s: float = FLUSH_S
    ) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._clock = clock
        self._flush_s = flush_s
        self._pending: list[tuple[float, TrainEvent]] = []
        self._dropped = 0
        self._changed = threading.Condition()
        self._closing = False
        self._seq = 0
        self._tail = b""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def emit(self, event: TrainEvent) -> None:
        """Take an event; never waits for the disk. Past 10,000 waiting ones, only what matters is kept."""
        with self._changed:
            last = self._pending[-1][1] if self._pending else None
            if isinstance(event, BatchDone) and isinstance(last, BatchDone) and last.epoch == event.epoch:
                self._pending[-1] = (self._clock(), merge(last, event))
            elif len(self._pending) >= MAX_PENDING and isinstance(event, BatchDone | Log | System):
                self._dropped += 1
            else:
                self._pending.append((self._clock(), event))

    def close(self) -> None:
        """Write what is waiting and end the thread; raises OSError where the disk refused it."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()
        try:
            self._flush()
        finally:
            os.close(self._file)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, timeout=self._flush_s):
                    return
            try:
                self._flush()
            except OSError:
                continue  # a full disk: the lines wait; a checkpoint or close() will tell

    def _flush(self) -> None:
        with self._changed:
            pending, self._pending = self._pending, []
            if self._dropped:
                text = f"{self._dropped} events were dropped; the disk does not keep up"
                pending.append((self._clock(), Warned(code="EVENTS_DROPPED", message=text)))
                self._dropped = 0
        self._tail += self._encode(pending)
        while self._tail:
            self._tail = self._tail[os.write(self._file, self._tail) :]

    def _encode(self, pending: Sequence[tuple[float, TrainEvent]]) -> bytes:
        lines = []
        for ts, event in pending:
            self._seq += 1
            lines.append(encode_line(event, seq=self._seq, ts=ts))
        return "".join(lines).encode()
