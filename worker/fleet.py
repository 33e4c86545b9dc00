"""What this machine offers: slots, their devices, and the row that says a slot is alive and what it does.

Finds GPUs by asking the driver's own tool; it must not load torch nor open a CUDA context.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass
from importlib.metadata import version

from api.domain.errors import StoreUnavailable
from api.domain.fleet import GONE, UNHEALTHY, WorkerBook


@dataclass(frozen=True)
class SlotSpec:
    """One place for one run at a time: the queues it serves, its number on this machine, its device.

    `gpus` holds the driver's ids of the devices the child may see; empty for a CPU slot.
    """

    queues: tuple[str, ...]
    number: int
    host: str
    gpus: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Return the slot's name in the fleet, the same after a restart."""
        return f"{self.host}/{self.queues[0]}/{self.number}"

    def environment(self) -> dict[str, str]:
        """Return what narrows a child to this slot's devices."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}

    def device(self, wanted: str) -> str:
        """Return the device a child is told: the one it can see, or the settings' choice."""
        if wanted != "auto":
            return wanted
        return "cuda:0" if self.gpus else "cpu"


def make_slot(queues: tuple[str, ...], number: int) -> SlotSpec:
    """Return the slot of this process; a GPU queue (`train.g<n>`) takes n devices, slot by slot.

    Raises ValueError if the machine has too few of them.
    """
    host = socket.gethostname()
    wanted = gpus_of_queue(queues[0])
    if wanted == 0:
        return SlotSpec(queues, number, host)
    found = visible_gpus()
    mine = found[number * wanted : (number + 1) * wanted]
    if len(mine) < wanted:
        raise ValueError(f"slot {number} of {queues[0]} needs {wanted} of {len(found)} GPUs")
    return SlotSpec(queues, number, host, tuple(mine))


def gpus_of_queue(queue: str) -> int:
    """Return how many GPUs a run of this queue takes: n for `train.g<n>`, 0 for all others."""
    kind, _, size = queue.rpartition(".g")
    return int(size) if kind and size.isdigit() else 0


def visible_gpus() -> list[str]:
    """Return the driver's ids of the GPUs this process may use, none where there is no driver."""
    narrowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if narrowed is not None:
        return [part.strip() for part in narrowed.split(",") if part.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = subprocess.run(
        [tool, "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return asked.stdout.split() if asked.returncode == 0 else []


class Presence:
    """Tells the book of workers, every `period_s` and at each change, that a slot lives and what it does."""

    def __init__(self, book: WorkerBook, spec: SlotSpec, drain: threading.Event, *, period_s: float) -> None:
        self._drain = drain
        self._book = book
        self._spec = spec
        self._period_s = period_s
        self._version = version("trainshed")
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self.state = "idle"
        self.current_id: str | None = None
        self._reason: str | None = None

    def start(self) -> None:
        """Announce the slot and go on doing so."""
        self._thread.start()

    def show(self, state: str, current_id: str | None = None) -> None:
        """Change what is told: idle, busy (with what) or draining; an unhealthy slot stays unhealthy."""
        if self.state != UNHEALTHY:
            self.state, self.current_id = state, current_id
        self._wake.set()

    def give_up(self, reason: str) -> None:
        """Say at once, and from now on, that the slot is unhealthy and why."""
        self.state, self.current_id, self._reason = UNHEALTHY, None, reason
        with contextlib.suppress(StoreUnavailable):
            self._announce()

    def stop(self) -> None:
        """Say that the slot is gone, and stop."""
        self._ended = True
        self.show(GONE)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            ended = self._ended
            # People look at these rows, nothing depends on them: a missed one is made up by the next.
            with contextlib.suppress(StoreUnavailable):
                self._announce()
            if ended:
                return
            self._wake.wait(self._period_s)

    def _announce(self) -> None:
        self._book.announce(
            self._spec.id,
            queue=self._spec.queues[0],
            host=self._spec.host,
            pid=os.getpid(),
            gpus=self._spec.gpus,
            version=self._version,
            state="draining" if self._drain.is_set() and self.state in ("idle", "busy") else self.state,
            current_id=self.current_id,
            reason=self._reason,
        )
