"""Keeps the members up: ordered start behind health gates, restarts with back-off, ordered stop, no orphans.

A loop over members and a clock; it knows no member's purpose. Whoever asks it to stop calls `request_stop`
from a signal handler: once for an orderly stop, twice to kill everything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api.stack.member import Member, describe_exit

_TICK_S = 0.05
_WATCH_S = 0.2


class StackError(Exception):
    """A member cannot be kept up; the text names it and ends with its last log lines."""


class StopRequestedError(Exception):
    """The stack was asked to stop before it was up."""


@dataclass(frozen=True)
class RestartPolicy:
    """How often a member may die before it counts as broken, and how long it waits in between."""

    first_pause_s: float = 0.5
    longest_pause_s: float = 15.0
    max_deaths: int = 5
    window_s: float = 120.0

    def pause_s(self, deaths: int) -> float:
        """Return the wait before the restart that follows the n-th recent death."""
        return float(min(self.first_pause_s * 2 ** max(0, deaths - 1), self.longest_pause_s))


class Supervisor:
    """Starts, watches and stops members, given in the order of their start."""

    def __init__(
        self,
        groups: Sequence[Sequence[Member]],
        say: Callable[[str], None],
        policy: RestartPolicy | None = None,
    ) -> None:
        self._groups = [list(group) for group in groups]
        self._say = say
        self._policy = policy or RestartPolicy()
        self._deaths: dict[str, list[float]] = {}
        self._restart_at: dict[str, float] = {}
        self._stops = 0
        self._wake = threading.Event()

    @property
    def members(self) -> list[Member]:
        """Return all members in the order of their start."""
        return [member for group in self._groups for member in group]

    def request_stop(self) -> None:
        """Ask for the end; may be called from a signal handler. The second call kills."""
        self._stops += 1
        self._wake.set()

    def start(self) -> None:
        """Start group after group, each behind the readiness of the one before.

        Raises StackError for a member that does not come up, StopRequestedError if asked to stop meanwhile.
        """
        for group in self._groups:
            for member in group:
                member.start()
            for member in group:
                self._await_ready(member)

    def _await_ready(self, member: Member) -> None:
        began = time.monotonic()
        while not member.check_ready():
            if self._stops:
                raise StopRequestedError
            if member.poll() is not None:
                self._revive_now(member)
            elif time.monotonic() - member.started_at > member.spec.ready_within_s:
                raise StackError(self._diagnosis(member, "does not become ready"))
            self._wake.wait(_TICK_S)
        self._say(f"{member.name} is ready ({time.monotonic() - began:.1f} s)")

    def _revive_now(self, member: Member) -> None:
        pause_s = self._note_death(member)
        self._wake.wait(pause_s)
        if not self._stops:
            member.start()

    def _note_death(self, member: Member) -> float:
        """Count a death and return the pause before the restart; raise StackError for one too many."""
        code = member.poll()
        how = describe_exit(code) if code is not None else "no exit code"
        now = time.monotonic()
        recent = [at for at in self._deaths.get(member.name, []) if now - at < self._policy.window_s]
        self._deaths[member.name] = [*recent, now]
        # A leader that died may have left helpers in its session.
        member.kill()
        if len(recent) + 1 >= self._policy.max_deaths:
            raise StackError(self._diagnosis(member, f"keeps ending ({how}, {len(recent) + 1} times)"))
        pause_s = self._policy.pause_s(len(recent) + 1)
        self._say(f"{member.name} ended ({how}); starting it again in {pause_s:g} s")
        return pause_s

    def _diagnosis(self, member: Member, what: str) -> str:
        tail = member.log_tail() or ["(its log is empty)"]
        return "\n".join([f"{member.name} {what}. The end of {member.spec.log}:", *(f"  {x}" for x in tail)])

    def watch(self) -> None:
        """Keep the members up until asked to stop; raises StackError for one that cannot be kept up."""
        while not self._stops:
            for member in self.members:
                self._look_after(member)
            self._wake.wait(_WATCH_S)

    def _look_after(self, member: Member) -> None:
        member.bound_log()
        restart_at = self._restart_at.get(member.name)
        if restart_at is not None:
            if time.monotonic() >= restart_at:
                del self._restart_at[member.name]
                member.start()
        elif member.poll() is not None:
            self._restart_at[member.name] = time.monotonic() + self._note_death(member)
        elif not member.is_ready and member.check_ready():
            self._say(f"{member.name} is ready again")

    def stop(self) -> None:
        """Stop group after group in reverse, politely; what does not end in time is killed."""
        for group in reversed(self._groups):
            running = [member for member in group if member.pid is not None]
            for member in running:
                member.ask_to_stop()
            for member in running:
                self._await_end(member)
        self.kill()

    def _await_end(self, member: Member) -> None:
        until = time.monotonic() + member.spec.stop_within_s
        self._wake.clear()
        while member.poll() is None:
            if self._stops >= 2 or time.monotonic() > until:
                self._say(f"killing {member.name}")
                member.kill()
                return
            self._wake.wait(_TICK_S)
        member.kill()

    def kill(self) -> None:
        """Kill every member and what they started."""
        for member in reversed(self.members):
            member.kill()
