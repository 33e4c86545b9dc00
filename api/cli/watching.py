"""Shows a job's events as they come: a line an epoch, and on a terminal a live line of the current batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.status import Status

from api.client.models import FINAL_STATES, Event

_FAILED_LEVELS = frozenset({"error", "warning"})


def _losses(values: Mapping[str, Any] | None) -> str:
    found = values or {}
    return "  ".join(f"{name} {found[name]:.4f}" for name in ("box", "obj", "cls") if name in found)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def epoch_line(data: Mapping[str, Any]) -> str:
    """Return the line of a finished epoch; epochs count from 1 in text."""
    best = "  best" if data.get("best") else ""
    seconds = data.get("seconds")
    time = f"  {seconds:.1f} s" if isinstance(seconds, int | float) else ""
    return (
        f"epoch {int(data['epoch']) + 1:>3}/{data.get('epochs', '?')}  train {_losses(data.get('train'))}"
        f"  val {_losses(data.get('val')) or '-'}  P {_number(data.get('precision'))}"
        f"  R {_number(data.get('recall'))}  mAP50 {_number(data.get('map50'))}"
        f"  mAP50-95 {_number(data.get('map50_95'))}{time}{best}"
    )


def batch_line(data: Mapping[str, Any]) -> str:
    """Return the live line of a batch."""
    speed = data.get("images_per_s")
    rate = f"  {speed:.0f} images/s" if isinstance(speed, int | float) else ""
    return (
        f"epoch {int(data['epoch']) + 1}  batch {int(data['batch']) + 1}/{data.get('batches', '?')}"
        f"  {_losses(data.get('loss'))}{rate}"
    )


def start_line(data: Mapping[str, Any]) -> str:
    """Return the line that says what a run resolved its settings to."""
    simulated = "  SIMULATED: no weights will come of it" if data.get("simulated") else ""
    return (
        f"training on {data.get('device')} in {data.get('precision')}: {data.get('num_train_images')} images,"
        f" {data.get('num_val_images')} for validation, {data.get('num_parameters'):,} parameters,"
        f" batch {data.get('batch')}{simulated}"
    )


def _log_line(data: Mapping[str, Any]) -> str | None:
    return f"{data['level']}: {data.get('message')}" if data.get("level") in _FAILED_LEVELS else None


_LINES: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "start": start_line,
    "epoch": epoch_line,
    "resume": lambda data: f"continues from epoch {int(data['epoch']) + 1}, batch {int(data['batch']) + 1}",
    "warning": lambda data: f"warning: {data.get('message')}",
    "log": _log_line,
}


def event_line(event: Event) -> str | None:
    """Return the line an event leaves in a log, or None for one that leaves none."""
    make = _LINES.get(event.type)
    return make(event.data) if make is not None else None


class Watcher:
    """Prints events to a console; with a terminal the last line is live."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase: str | None = None
        self._status: str | None = None
        self._shown: tuple[str | None, str | None] = (None, None)

    def watch(self, events: Iterable[Event]) -> str | None:
        """Print events until they end; return the job's last known state."""
        if not self._console.is_terminal:
            for event in events:
                self._show(event, None)
            return self._status
        with self._console.status("waiting for the job") as live:
            for event in events:
                self._show(event, live)
        return self._status

    def _show(self, event: Event, live: Status | None) -> None:
        if event.type == "job":
            self._show_state(event.data)
        elif event.type == "phase":
            self._show_phase(event.data.get("phase"))
        elif event.type == "batch":
            if live is not None:
                live.update(batch_line(event.data))
        elif (line := event_line(event)) is not None:
            self._console.print(line, markup=False)

    def _show_phase(self, phase: str | None) -> None:
        # Training and validating alternate each epoch, whose own line says enough.
        if phase and phase != self._phase and phase not in ("training", "validating"):
            self._console.print(f"phase: {phase}", markup=False)
        self._phase = phase

    def _show_state(self, job: Mapping[str, Any]) -> None:
        status, reason = job.get("status"), job.get("waiting_reason")
        if (status, reason) != self._shown:
            self._shown = (status, reason)
            self._console.print(
                f"job {job.get('id')}: {status}{f' ({reason})' if reason else ''}", markup=False
            )
        self._status = str(status) if status else self._status

    @property
    def ended(self) -> bool:
        """Whether the last snapshot said that the job is over."""
        return self._status in FINAL_STATES
