"""Tell a container engine whether the worker beside this program lives, by its row in the book of workers.

Exits 0 or 1 with a line that says why. A database that is away is no fault of the worker's, which trains on
without it, and must not get it killed.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from api.domain.clock import SYSTEM_CLOCK
from api.domain.errors import StoreUnavailable
from api.domain.fleet import WorkerBook
from api.domain.records import Slot
from api.domain.settings import get_settings
from api.domain.store import open_store


def judge(slots: Sequence[Slot], host: str, *, now: float, patience_s: float) -> tuple[int, str]:
    """Return exit code and reason for the slots of one host; `now` is wall time in seconds."""
    mine = [slot for slot in slots if slot.host == host and slot.state != "gone"]
    if not mine:
        return 1, f"no slot of {host} has announced itself"
    for slot in mine:
        silent_s = now - slot.seen_at
        if silent_s > patience_s:
            return 1, f"{slot.id} has been silent for {silent_s:.0f} s"
        if slot.state == "unhealthy":
            return 1, f"{slot.id} says that it is unhealthy"
    return 0, f"{len(mine)} slot(s) well"


def main() -> int:
    """Look at this host's slots; print the reason and return the exit code."""
    settings = get_settings()
    store = open_store(settings)
    try:
        slots = WorkerBook(store).list()
    except StoreUnavailable as error:
        print(f"cannot tell: {error}")
        return 0
    finally:
        store.close()
    # A worker that is not seen for the length of a lease counts as lost everywhere else, too.
    code, reason = judge(slots, socket.gethostname(), now=SYSTEM_CLOCK.wall(), patience_s=settings.lease_s)
    print(reason)
    return code


if __name__ == "__main__":
    sys.exit(main())
