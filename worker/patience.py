"""How long a supervisor waits for a database that is away before it leaves the end to others.

It must not know what is waited for.
"""

from __future__ import annotations

import threading
import time


class Patience:
    """Endless, until the worker drains; then bounded, in seconds."""

    def __init__(self, drain: threading.Event, bound_s: float) -> None:
        self._drain = drain
        self._bound_s = bound_s
        self._since: float | None = None

    def is_tried(self) -> bool:
        """Tell whether the worker drains; the bound counts from the first look that saw it."""
        if self._drain.is_set() and self._since is None:
            self._since = time.monotonic()
        return self._since is not None

    def is_over(self) -> bool:
        """Tell whether there is no more waiting."""
        return self.is_tried() and self._since is not None and time.monotonic() - self._since >= self._bound_s
