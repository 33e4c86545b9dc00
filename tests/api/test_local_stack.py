"""The supervisor of the one-machine stack, over small programs: order, gates, restarts, no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from api.stack.lock import FolderInUseError, FolderLock
from api.stack.member import Member, MemberSpec, describe_exit
from api.stack.supervisor import RestartPolicy, StackError, StopRequestedError, Supervisor
from tests.support.shared import ROOT

QUICK = RestartPolicy(first_pause_s=0.02, longest_pause_s=0.05, max_deaths=3, window_s=30)
# Ends with its lifeline, as the service's own programs do.
OBEDIENT = "import os,sys; print('up', flush=True); os.read(0, 1)"
STUBBORN = (
    "import signal,subprocess,sys,time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
    "child = subprocess.Popen(sleep, start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)\n"
)


def member(
    folder: Path,
    name: str,
    program: str,
    is_ready: Callable[[int], bool] = lambda _: True,
    *,
    stop_within_s: float = 5.0,
    ready_within_s: float = 5.0,
) -> Member:
    """Make a member that runs a few lines of Python."""
    return Member(
        MemberSpec(
            name,
            [sys.executable, "-c", program],
            dict(os.environ),
            folder / f"{name}.log",
            is_ready,
            ready_within_s=ready_within_s,
            stop_within_s=stop_within_s,
        )
    )


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_groups_start_in_order_each_behind_the_one_before(tmp_path: Path) -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[int], bool]:
        return lambda _: order.append(name) or True  # type: ignore[func-returns-value]

    first = member(tmp_path, "first", OBEDIENT, noting("first"))
    second = member(tmp_path, "second", OBEDIENT, noting("second"))
    supervisor = Supervisor([[first], [second]], lambda _: None, QUICK)
    supervisor.start()
    assert order == ["first", "second"]
    assert first.pid is not None and second.pid is not None
    supervisor.stop()
    assert first.pid is None and second.pid is None


def test_a_dead_member_is_started_again(tmp_path: Path) -> None:
    one = member(tmp_path, "one", OBEDIENT)
    lines: list[str] = []
    supervisor = Supervisor([[one]], lines.append, QUICK)
    supervisor.start()
    watcher = threading.Thread(target=supervisor.watch)
    watcher.start()
    before = one.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: one.pid not in (None, before) and any("ready again" in line for line in lines))
    supervisor.request_stop()
    watcher.join(10)
    supervisor.stop()
    assert any("one ended (SIGKILL)" in line for line in lines)


def test_a_crash_loop_names_the_culprit_and_its_last_words(tmp_path: Path) -> None:
    broken = member(tmp_path, "broken", "import sys; sys.exit('no such table: jobs')", lambda _: False)
    supervisor = Supervisor([[broken]], lambda _: None, QUICK)
    with pytest.raises(StackError, match="broken keeps ending") as caught:
        supervisor.start()
    assert "no such table: jobs" in str(caught.value)
    supervisor.kill()


def test_a_member_that_never_gets_ready_is_named(tmp_path: Path) -> None:
    slow = member(tmp_path, "slow", OBEDIENT, lambda _: False, ready_within_s=0.3)
    supervisor = Supervisor([[slow]], lambda _: None, QUICK)
    with pytest.raises(StackError, match="slow does not become ready"):
        supervisor.start()
    supervisor.kill()
    assert slow.pid is None


def test_stop_while_starting(tmp_path: Path) -> None:
    waiting = member(tmp_path, "waiting", OBEDIENT, lambda _: False)
    supervisor = Supervisor([[waiting]], lambda _: None, QUICK)
    threading.Timer(0.2, supervisor.request_stop).start()
    with pytest.raises(StopRequestedError):
        supervisor.start()
    supervisor.stop()
    assert waiting.pid is None


def test_what_ignores_the_polite_stop_is_killed_with_its_family(tmp_path: Path) -> None:
    stubborn = member(tmp_path, "stubborn", STUBBORN, stop_within_s=0.3)
    supervisor = Supervisor([[stubborn]], lambda _: None, QUICK)
    supervisor.start()
    until(lambda: bool(stubborn.log_tail()))
    grandchild = int(stubborn.log_tail()[-1])
    supervisor.stop()
    until(lambda: not _runs(grandchild))


def test_a_second_request_does_not_wait(tmp_path: Path) -> None:
    stubborn = member(tmp_path, "stubborn", STUBBORN, stop_within_s=60)
    supervisor = Supervisor([[stubborn]], lambda _: None, QUICK)
    supervisor.start()
    until(lambda: bool(stubborn.log_tail()))
    supervisor.request_stop()
    threading.Timer(0.2, supervisor.request_stop).start()
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 10


@pytest.mark.skipif(sys.platform != "linux", reason="adopts orphans as only Linux can")
def test_a_kill_does_not_wait_for_someone_to_reap_the_dead(tmp_path: Path) -> None:
    # Whoever adopts the orphans, a container's first process say, may be slow to reap them, or never do.
    adopter = (
        "import ctypes, subprocess, sys\n"
        "set_child_subreaper = 36\n"
        "assert ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) == 0\n"
        "sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)\n"
    )
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from api.stack.member import Member, MemberSpec\n"
        "log = Path(sys.argv[1]) / 'm.log'\n"
        "command = [sys.executable, '-c', sys.argv[2]]\n"
        "one = Member(MemberSpec('m', command, dict(os.environ), log, lambda _: True)); one.start()\n"
        "while not one.log_tail(): time.sleep(0.02)\n"
        "orphan = int(one.log_tail()[-1])\n"
        "began = time.monotonic(); one.kill()\n"
        "print(time.monotonic() - began)\n"
        "print(Path(f'/proc/{orphan}/stat').read_text().split()[2])\n"
    )
    command = [sys.executable, "-c", adopter, program, str(tmp_path), STUBBORN]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=True)
    seconds, state = done.stdout.split()
    assert float(seconds) < 3 and state == "Z"


def test_members_end_with_a_killed_supervisor_and_keep_the_lock_until_then(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from api.stack.lock import FolderLock\n"
        "from api.stack.member import Member, MemberSpec\n"
        "folder = Path(sys.argv[1])\n"
        "lock = FolderLock(folder); lock.acquire()\n"
        "code = 'import os, time; os.read(0, 1); time.sleep(0.5)'\n"
        "command = [sys.executable, '-c', code]\n"
        "spec = MemberSpec('m', command, dict(os.environ), folder / 'm.log', lambda _: True)\n"
        "one = Member(spec, keep_open=[lock.fileno]); one.start()\n"
        "print(one.pid, flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as supervisor:
        assert supervisor.stdout is not None
        orphan = int(supervisor.stdout.readline())
        with pytest.raises(FolderInUseError, match=f"process {supervisor.pid}"):
            FolderLock(tmp_path).acquire()
        supervisor.kill()
    with FolderLock(tmp_path, patience_s=10):
        assert not _runs(orphan)


def test_the_tether_ends_its_program_with_the_lifeline(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = "import os,sys,time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    command = [sys.executable, "-m", "api.stack.tether", sys.executable, "-c", code, str(pid_file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as tether:
        until(lambda: pid_file.is_file() and pid_file.read_text() != "")
        assert tether.stdin is not None
        tether.stdin.close()
        assert tether.wait(10) == 128 + signal.SIGTERM
    assert not _runs(int(pid_file.read_text()))


@pytest.mark.parametrize(("code", "text"), [(1, "exit code 1"), (-9, "SIGKILL"), (-250, "signal 250")])
def test_exits_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text


@pytest.mark.parametrize(("deaths", "pause_s"), [(1, 0.5), (2, 1), (3, 2), (10, 15)])
def test_pauses_double_up_to_a_bound(deaths: int, pause_s: float) -> None:
    assert RestartPolicy().pause_s(deaths) == pause_s


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_large_log_is_cut_while_its_program_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    log.parent.mkdir()
    member = Member(MemberSpec("a", ["true"], {}, log, lambda _pid: True))
    with log.open("ab") as writer:
        writer.write(b"x" * (9 << 20))
        writer.flush()
        member.bound_log()
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert log.with_name("a.log.1").stat().st_size == 9 << 20
