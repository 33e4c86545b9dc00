"""Out-of-memory kills are counted where the kernel counts them; GPU memory that stays is noticed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from worker.memory import MIB, LeftoverCheck, NvidiaSmi, OomWatch, num_oom_kills, oom_counter

EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


GROUPS = {
    "cgroup 2": ("0::/user.slice/job\n", "user.slice/job/memory.events", EVENTS),
    "cgroup 2 in a container": ("0::/\n", "memory.events", EVENTS),
    "cgroup 2 seen from the host": ("0::/docker/abc\n", "memory.events", EVENTS),
    "cgroup 2 beside 1": ("1:cpu:/x\n0::/job\n", "unified/job/memory.events", EVENTS),
    "cgroup 1": ("9:name=systemd:/\n4:memory:/api/abc\n0::/\n", "memory/api/abc/memory.oom_control", CONTROL),
    "cgroup 1 in a container": ("4:cpu,memory:/docker/abc\n", "memory/memory.oom_control", CONTROL),
    "a group above ours": ("0::/../job\n", "job/memory.events", EVENTS),
}


@pytest.mark.parametrize(("groups", "file", "text"), GROUPS.values(), ids=list(GROUPS))
def test_the_counter_of_a_process_s_group(tmp_path: Path, groups: str, file: str, text: str) -> None:
    put(tmp_path / "proc" / "42" / "cgroup", groups)
    counter = put(tmp_path / "cgroup" / file, text.format(5))
    assert oom_counter(42, proc=tmp_path / "proc", root=tmp_path / "cgroup") == counter
    assert num_oom_kills(counter) == 5


def test_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert oom_counter(42, proc=tmp_path / "proc", root=tmp_path) is None
    put(tmp_path / "proc" / "42" / "cgroup", "0::/job\n")
    assert oom_counter(42, proc=tmp_path / "proc", root=tmp_path) is None
    assert num_oom_kills(tmp_path / "absent") is None
    assert num_oom_kills(put(tmp_path / "old", "oom_kill_disable 0\n")) is None
    assert num_oom_kills(put(tmp_path / "odd", "oom_kill many\n")) is None
    watch = OomWatch(None)
    watch.look()
    assert not watch.has_killed()


def test_this_machine_s_own_counter_is_read_or_absent() -> None:
    watch = OomWatch(oom_counter(1))
    watch.look()
    assert not watch.has_killed()


def test_a_kill_is_seen_for_as_long_as_a_process_may_take_to_die(tmp_path: Path) -> None:
    counter, now = put(tmp_path / "memory.events", EVENTS.format(1)), [0.0]
    watch = OomWatch(counter, clock=lambda: now[0])

    def at(time: float) -> bool:
        now[0] = time
        watch.look()
        return watch.has_killed()

    assert not at(0.5) and not at(10)
    put(counter, EVENTS.format(2))
    assert at(10.1) and at(20) and at(39)
    # Long ago: whoever dies now did not die of that.
    assert not at(51)
    put(counter, EVENTS.format(3))
    assert at(51.1)
    counter.unlink()
    assert not watch.has_killed()


class Devices:
    """A fake of the driver: what it answers, in order; the last answer stays."""

    def __init__(self, *answers: Mapping[str, int] | None) -> None:
        self.answers = list(answers)

    def used_bytes(self, gpus: Sequence[str]) -> Mapping[str, int] | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def check(*answers: Mapping[str, int] | None, gpus: tuple[str, ...] = ("0",)) -> str | None:
    return LeftoverCheck(Devices(*answers), gpus, patience_s=0.05).problem()


def test_memory_that_comes_back_is_no_problem() -> None:
    assert check({"0": 10 * MIB}, {"0": 10 * MIB}) is None
    assert check({"0": 10 * MIB}, {"0": 9000 * MIB}, {"0": 200 * MIB}) is None
    assert check({"0": 9000 * MIB}, {"0": 10 * MIB}) is None


def test_memory_that_stays_is_named() -> None:
    told = check({"0": 0, "1": 10 * MIB}, {"0": 0, "1": 5010 * MIB}, gpus=("0", "1"))
    assert told == "5000 MiB of GPU 1 are still in use after the run"


def test_a_driver_that_falls_silent_is_a_problem_and_one_that_never_spoke_is_not() -> None:
    assert check({"0": 0}, None) == "the GPU driver does not answer any more"
    assert check(None, {"0": 9000 * MIB}) is None
    assert check(None, gpus=()) is None


def test_the_driver_s_tool_is_asked_by_index_or_uuid(tmp_path: Path) -> None:
    tool = put(
        tmp_path / "nvidia-smi",
        "#!/bin/sh\necho '0, GPU-aaaa-1, 11'\necho '1, GPU-bbbb-2, 22'\necho '2, GPU-cccc-3, [N/A]'\n",
    )
    tool.chmod(0o755)
    asks = NvidiaSmi(str(tool))
    assert asks.used_bytes(("0", "GPU-bbbb")) == {"0": 11 * MIB, "GPU-bbbb": 22 * MIB}
    assert asks.used_bytes(("2",)) is None
    assert asks.used_bytes(("7",)) is None
    assert NvidiaSmi(str(tmp_path / "absent")).used_bytes(("0",)) is None
    put(tool, "#!/bin/sh\nexit 15\n")
    assert asks.used_bytes(("0",)) is None
