"""How many images fit: a memory curve measured on real steps, a line through it, and a step that confirms it.

A line through noisy readings promises what memory does not hold, so no batch is chosen that has not run; and
the readings are of the largest shape the run will see, since a later, larger one must fit as well. It must
not know the run, its configuration or its loader: what a step is comes as a function.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import torch
from torch import nn

from yolocore.errors import OutOfMemoryError
from yolocore.ops.assign import Floats
from yolocore.train.amp_check import LossFunction, synthetic_batch, untouched
from yolocore.train.failures import naming_failures
from yolocore.train.precision import Precision

CANDIDATES = (1, 2, 4, 8, 16)
LARGEST = 1024
STEP_DOWN = 0.8
SAMPLE_S = 0.001
MIB = 2**20
# What cuDNN and cuBLAS say instead of "out of memory" when there is no room for their own work.
NO_ROOM = ("_STATUS_ALLOC_FAILED", "valid cuDNN algorithm", "unable to find an engine", "out of memory")


class Meter(Protocol):
    """Reads a device's memory."""

    def free_bytes(self) -> int:
        """Return what this process can still take."""
        ...

    def peak_of(self, step: Callable[[], None]) -> int:
        """Run a step; return what it held at its peak above what was held before."""
        ...


class CudaMeter:
    """Memory of one GPU, as torch reserves it: what is reserved is what others cannot have."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free_bytes(self) -> int:
        """Return the device's free memory, with torch's unused blocks given back first."""
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self.device)[0])

    def peak_of(self, step: Callable[[], None]) -> int:
        """Run a step from an empty cache; return the most that was reserved above the level before."""
        gc.collect()
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_reserved(self.device)
        try:
            step()
            torch.cuda.synchronize(self.device)
            return int(torch.cuda.max_memory_reserved(self.device) - before)
        finally:
            torch.cuda.empty_cache()


class CpuMeter:
    """Resident memory of this process; what is free is bounded by the control group's limit.

    Linux keeps the peak itself and lets it be reset; where it does not, a thread samples, which can miss a
    peak that lasts under a millisecond.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._own = proc / "self"
        self._cgroups = cgroups

    def free_bytes(self) -> int:
        """Return the machine's available memory, or less where a control group allows less."""
        return min([int(psutil.virtual_memory().available), *self._rooms()])

    def peak_of(self, step: Callable[[], None]) -> int:
        """Run a step; return its peak of resident memory above the level before."""
        gc.collect()
        _give_back()
        if self._reset_peak():
            before = self._status_bytes("VmRSS")
            step()
            return max(self._status_bytes("VmHWM") - before, 0)
        with _sampled() as peak:
            step()
        return peak[0]

    def _reset_peak(self) -> bool:
        try:
            (self._own / "clear_refs").write_text("5")  # see proc(5): sets VmHWM to the present VmRSS
            return self._status_bytes("VmHWM") > 0
        except OSError:
            return False

    def _status_bytes(self, field: str) -> int:
        for line in (self._own / "status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        return 0

    def _rooms(self) -> Iterator[int]:
        """Yield what each limit above this process leaves; file pages nobody used lately count as free."""
        for group, limit, used, inactive in self._groups():
            with suppress(OSError, ValueError):  # no such file, or the limit is "max"
                most = int((group / limit).read_text())
                held = int((group / used).read_text())
                yield max(most - held + _stat(group, inactive), 0)

    def _groups(self) -> Iterator[tuple[Path, str, str, str]]:
        """Yield the folders of this process's groups, up to the root, with the files of their version."""
        try:
            lines = (self._own / "cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, files = self._cgroups, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                root = self._cgroups / "memory"
                files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield root.joinpath(*parts[:depth]), *files


def _stat(group: Path, field: str) -> int:
    with suppress(OSError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == field:
                return int(value)
    return 0


def _give_back() -> None:
    """Have the C library return its free memory, or the next step is measured by what it need not ask for."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _sampled() -> Iterator[list[int]]:
    """Yield a list whose only entry is, once the block is over, the peak above the level at its start."""
    process = psutil.Process()
    before = process.memory_info().rss
    result, over = [0], threading.Event()

    def sample() -> None:
        while True:
            result[0] = max(result[0], process.memory_info().rss - before)
            if over.wait(SAMPLE_S):
                return

    thread = threading.Thread(target=sample, name="memory-sampler", daemon=True)
    thread.start()
    try:
        yield result
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class BatchChoice:
    """The batch, and the figures behind it.

    `curve` holds (batch, peak in bytes) of the candidates that ran; `confirmed_bytes` is the peak of a real
    step at `batch`, `free_bytes` what was free before it.
    """

    batch: int
    curve: tuple[tuple[int, int], ...]
    predicted_bytes: int
    confirmed_bytes: int
    free_bytes: int

    def summary(self) -> str:
        """Return one line for a person."""
        return (
            f"batch {self.batch}: a step takes {self.confirmed_bytes / MIB:.0f} MiB "
            f"({self.predicted_bytes / MIB:.0f} expected) of {self.free_bytes / MIB:.0f} MiB free"
        )


def choose_batch(
    trial: Callable[[int], None],
    meter: Meter,
    *,
    size_hw: tuple[int, int],
    largest: int,
    fraction: float = 0.8,
    candidates: Sequence[int] = CANDIDATES,
) -> BatchChoice:
    """Return the largest batch whose step takes at most `fraction` of the memory that is free.

    `trial` does one whole step at a batch, on the largest shape of the run, `size_hw` pixels. The first trial
    is not counted: it loads what stays. Raises OutOfMemoryError where not even one image fits.
    """
    _measure(trial, 1, meter)
    free = meter.free_bytes()
    budget = int(fraction * free)
    most = max(1, min(largest, LARGEST))
    sizes = sorted({1, *(size for size in candidates if size <= most)})
    curve, failed = _curve(trial, meter, sizes, budget, free)
    if not curve:
        raise _refused(size_hw, failed[1] if failed else None, free, budget)
    line = _line(curve)
    batch = min(_promised(line, curve, budget, free), failed[0] - 1 if failed else most, most)
    measured: dict[int, int | None] = dict(curve)
    while True:
        needed = measured[batch] if batch in measured else _measure(trial, batch, meter)
        if needed is not None and needed <= budget:
            return BatchChoice(batch, tuple(curve), _on(line, curve, batch), needed, free)
        smaller = int(batch * (budget / needed if needed else STEP_DOWN))
        batch = max(min(smaller, batch - 1), 1)  # one image is among those measured


def _curve(
    trial: Callable[[int], None], meter: Meter, candidates: Sequence[int], budget: int, free: int
) -> tuple[list[tuple[int, int]], tuple[int, int | None] | None]:
    """Measure rising candidates; return those within the budget, and the one that was not with its bytes.

    One that certainly needs more than is free is not tried: a CPU's process would be killed for it.
    """
    curve: list[tuple[int, int]] = []
    for size in candidates:
        if curve and _expected(curve, size) > free:
            break
        needed = _measure(trial, size, meter)
        if needed is None or needed > budget:
            return curve, (size, needed)
        curve.append((size, needed))
    return curve, None


def _expected(curve: Sequence[tuple[int, int]], size: int) -> float:
    """Return the bytes that the last two readings promise for `size`, or one reading in proportion."""
    last, high = curve[-1]
    if len(curve) == 1:
        return high * size / last
    before, low = curve[-2]
    return high + max(high - low, 0) / (last - before) * (size - last)


def _line(curve: Sequence[tuple[int, int]]) -> tuple[float, float] | None:
    """Return offset and slope of the least-squares line, None where the readings do not rise with the batch.

    Readings that do not rise promise nothing beyond the largest batch they were taken at.
    """
    if len(curve) < 2:
        return None
    sizes, needed = np.array(curve, dtype=np.float64).T
    slope, offset = (float(value) for value in np.polyfit(sizes, needed, 1))
    return (offset, slope) if slope >= 1 else None


def _promised(
    line: tuple[float, float] | None, curve: Sequence[tuple[int, int]], budget: int, free: int
) -> int:
    """Return the batch that the line promises for the budget.

    At least the largest that was measured, and at most what would still be free if memory grew in proportion
    from there: it grows by less, as weights are held once, so a slope that noise has flattened does no harm.
    """
    size, needed = curve[-1]
    if line is None:
        return size
    in_proportion = free * size // max(needed, 1)
    return max(min(int((budget - line[0]) / line[1]), in_proportion), size)


def _on(line: tuple[float, float] | None, curve: Sequence[tuple[int, int]], batch: int) -> int:
    """Return the bytes that the line promises for a batch; without one, those of the largest measured."""
    return curve[-1][1] if line is None else max(int(line[0] + line[1] * batch), 0)


def _measure(trial: Callable[[int], None], batch: int, meter: Meter) -> int | None:
    """Return the peak of a trial in bytes, None where memory ran out."""
    needed: int | None = None
    try:
        with naming_failures():
            needed = meter.peak_of(lambda: trial(batch))
    except OutOfMemoryError:
        pass
    except RuntimeError as error:
        if not any(words in str(error) for words in NO_ROOM):
            raise
    # The error is gone by now, and with it the frames that held the failed step's tensors.
    return needed


def _refused(size_hw: tuple[int, int], needed: int | None, free: int, budget: int) -> OutOfMemoryError:
    height, width = size_hw
    wanted = "more than there is" if needed is None else f"{needed / MIB:.0f} MiB"
    return OutOfMemoryError(
        f"one image of {width}x{height} needs {wanted}, {free / MIB:.0f} MiB are free and "
        f"{budget / MIB:.0f} MiB of them may be used; lower the image size or take a smaller model",
        place="/batch",
        value="-1",
    )


def trial_step(
    network: nn.Module,
    loss: LossFunction,
    precision: Precision,
    *,
    batch: int,
    size_hw: tuple[int, int],
    strides: Sequence[int],
    anchors_grid: Floats,
    num_classes: int,
    anchor_t: float,
    boxes_per_image: int = 32,
    weight_copies: int = 2,
) -> None:
    """Take from memory what a training step of this batch takes, and leave everything as it was.

    Empty images, forward, loss, scaled backward, norm of the gradients, in `precision` (with a scaler of its
    own). `weight_copies` stands for what the run will keep of each weight besides it and its gradient: the
    average, one momentum for SGD, two for Adam. Raises as torch does where memory runs out.
    """
    made = synthetic_batch(
        batch,
        size_hw,
        strides=strides,
        anchors_grid=anchors_grid,
        num_classes=num_classes,
        anchor_t=anchor_t,
        device=precision.device,
        boxes_per_image=boxes_per_image,
        noise=False,
    )
    own = Precision(precision.name, precision.device)
    with untouched(network, loss, precision.device):
        kept = [torch.zeros_like(value) for value in network.parameters() for _ in range(weight_copies)]
        network.train()
        images = made.images.to(next(network.parameters()).dtype) / 255
        with own.autocast():
            maps = network(images)
        total, _ = loss(maps, made.targets)
        own.backward(total)
        gradients = [value.grad for value in network.parameters() if value.grad is not None]
        torch.nn.utils.get_total_norm(gradients).item()  # waits for the device
        del kept
