"""The batch that fits: on devices of every kind of memory that a test can make up, and on this processor."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.loops import CPU
from tests.support.shapes import TINY_MODEL
from yolocore.errors import OutOfMemoryError
from yolocore.loss.detection import DetectionLoss
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.batchsize import MIB, BatchChoice, CpuMeter, Meter, choose_batch, trial_step
from yolocore.train.precision import Precision, PrecisionName

SIZE = (96, 160)


class FakeDevice:
    """Memory whose need is a function of the batch, in MiB; it runs out where a step needs more."""

    def __init__(
        self,
        needs: Callable[[int], float],
        free: float,
        error: Callable[[], Exception] = lambda: torch.OutOfMemoryError("CUDA out of memory"),
    ) -> None:
        self.needs, self.free, self.error = needs, free, error
        self.tried: list[int] = []

    def trial(self, batch: int) -> None:
        self.tried.append(batch)
        if self.needs(batch) > self.free:
            raise self.error()

    def free_bytes(self) -> int:
        return int(self.free * MIB)

    def peak_of(self, step: Callable[[], None]) -> int:
        step()
        return int(self.needs(self.tried[-1]) * MIB)

    def choose(self, largest: int = 1024, **changes: float) -> BatchChoice:
        meter: Meter = self
        return choose_batch(self.trial, meter, size_hw=SIZE, largest=largest, **changes)  # type: ignore[arg-type]


def test_a_straight_curve_gives_the_batch_that_fills_the_budget() -> None:
    device = FakeDevice(lambda batch: 100 + 50 * batch, 10_010)
    choice = device.choose()
    assert choice.batch == 158  # (0.8 * 10010 - 100) / 50
    assert choice.confirmed_bytes == (100 + 50 * 158) * MIB
    assert choice.predicted_bytes == pytest.approx(choice.confirmed_bytes, rel=1e-6)
    assert choice.free_bytes == 10_010 * MIB
    assert [batch for batch, _ in choice.curve] == [1, 2, 4, 8, 16]
    assert device.tried == [1, 1, 2, 4, 8, 16, 158]  # the first loads what stays
    assert choice.summary() == "batch 158: a step takes 8000 MiB (8000 expected) of 10010 MiB free"
    assert FakeDevice(device.needs, 10_010).choose(fraction=0.5).batch == 98


def test_the_batch_stays_within_the_given_bound_and_is_not_tried_twice() -> None:
    device = FakeDevice(lambda batch: 100 + 50 * batch, 10_000)
    assert device.choose(largest=16).batch == 16
    assert device.tried == [1, 1, 2, 4, 8, 16]
    assert FakeDevice(device.needs, 10_000).choose(largest=1).batch == 1
    assert FakeDevice(device.needs, 10_000).choose(largest=7).batch == 7
    assert FakeDevice(lambda batch: 1 + batch / 10, 1e6).choose(largest=4096).batch == 1024


def test_a_candidate_that_certainly_does_not_fit_is_not_tried() -> None:
    device = FakeDevice(lambda batch: 100 * batch, 1000)
    assert device.choose().batch == 8
    assert max(device.tried) == 8


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError,
        lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        lambda: RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_below_a_candidate_that_failed(error: Callable[[], Exception]) -> None:
    device = FakeDevice(lambda batch: 10 * batch if batch < 16 else 1e9, 10_000, error)
    choice = device.choose()
    assert choice.batch == 15
    assert [batch for batch, _ in choice.curve] == [1, 2, 4, 8]


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    device = FakeDevice(lambda batch: 1e9, 1, lambda: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        device.choose()


def test_a_promise_that_does_not_hold_is_taken_back() -> None:
    bent = FakeDevice(lambda batch: 10 * batch + (0 if batch <= 16 else 0.2 * batch**2), 10_000)
    choice = bent.choose()
    assert 16 < choice.batch < 200
    assert choice.confirmed_bytes <= 8000 * MIB < choice.predicted_bytes + 7000 * MIB
    assert bent.tried[-1] == choice.batch
    cliff = FakeDevice(lambda batch: 10 * batch if batch <= 100 else 1e9, 10_000)
    assert 80 <= cliff.choose().batch <= 100
    steep = FakeDevice(lambda batch: 10 * batch if batch <= 16 else 9000, 10_000)
    assert steep.choose().batch == 16


def test_one_image_that_does_not_fit_is_refused_with_the_figures() -> None:
    with pytest.raises(
        OutOfMemoryError, match="one image of 160x96 needs 900 MiB, 1000 MiB are free"
    ) as caught:
        FakeDevice(lambda batch: 900 * batch, 1000).choose()
    assert caught.value.place == "/batch"
    with pytest.raises(OutOfMemoryError, match="more than there is, 1000 MiB are free"):
        FakeDevice(lambda batch: 1001, 1000).choose()


@pytest.mark.parametrize(
    "readings",
    [
        {1: 300, 2: 200, 4: 150, 8: 120, 16: 110},
        {1: 100, 2: 100, 4: 100, 8: 100, 16: 100},
        {1: 0, 2: 0, 4: 0, 8: 0, 16: 0},
    ],
)
def test_readings_that_do_not_rise_promise_nothing_beyond_themselves(readings: dict[int, float]) -> None:
    device = FakeDevice(lambda batch: readings.get(batch, 1e9), 10_000)
    assert device.choose().batch == 16


def noisy(noise: NDArray[np.float64], batch: int) -> float:
    return float(max(100 + 20 * batch + noise[batch], 0))


def test_noise_never_leads_over_the_budget() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        noise = rng.normal(0, 60, 1025)
        device = FakeDevice(partial(noisy, noise), 4000)
        choice = device.choose()
        assert 100 <= choice.batch <= 190
        assert choice.confirmed_bytes <= 3200 * MIB


def tiny() -> Network:
    network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))
    return network.to(memory_format=torch.channels_last)


def stepper(network: Network, precision: Precision, side: int) -> Callable[[int], None]:
    strides = [int(stride) for stride in network.strides.tolist()]
    loss = DetectionLoss(num_classes=2, strides=strides, box=0.05, obj=1.0, cls=0.5, autobalance=True)

    def trial(batch: int) -> None:
        trial_step(
            network,
            loss,
            precision,
            batch=batch,
            size_hw=(side, side),
            strides=strides,
            anchors_grid=network.head.anchors.numpy(),
            num_classes=2,
            anchor_t=4.0,
        )

    return trial


class SmallMachine(CpuMeter):
    """This processor, of which only so much is free."""

    def __init__(self, free: int, proc: Path) -> None:
        super().__init__(proc)
        self.free = free

    def free_bytes(self) -> int:
        return min(self.free, super().free_bytes())


@pytest.mark.parametrize("resets", [True, False])
def test_on_this_processor_the_batch_keeps_to_the_budget(resets: bool, tmp_path: Path) -> None:
    if resets and not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system keeps no peak that can be reset")
    meter = SmallMachine(80 * MIB, Path("/proc") if resets else tmp_path)
    trial = stepper(tiny(), Precision("fp32", CPU), 192)
    choice = choose_batch(trial, meter, size_hw=(192, 192), largest=64)
    needed = [peak for _, peak in choice.curve]
    assert needed == sorted(needed) and needed[-1] > 1.5 * needed[0] > 0
    assert 1 < choice.batch < 64
    assert 0.3 * 64 * MIB < choice.confirmed_bytes <= 64 * MIB
    again = meter.peak_of(lambda: trial(choice.batch))
    assert again == pytest.approx(choice.confirmed_bytes, rel=0.25)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_trial_leaves_everything_as_it_was(precision: PrecisionName) -> None:
    network, scaled = tiny().eval(), Precision(precision, CPU)
    weight = next(network.head.parameters())
    weight.grad = torch.ones_like(weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [value.grad for value in network.parameters()]
    random, state = torch.get_rng_state(), scaled.state_dict()
    stepper(network, scaled, 64)(3)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module.training for module in network.modules())
    assert all(value.grad is one for value, one in zip(network.parameters(), gradients, strict=True))
    assert bool((weight.grad == 1).all())
    assert torch.equal(torch.get_rng_state(), random) and scaled.state_dict() == state


def write(path: Path, **files: object) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(f"{content}\n")


def test_a_limit_of_any_group_above_bounds_what_is_free(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    meter = CpuMeter(proc, groups)
    unlimited = meter.free_bytes()
    write(proc / "self", cgroup="0::/pod/box")
    write(groups / "pod/box", memory__max="max", memory__current=50 * MIB)
    assert meter.free_bytes() > unlimited / 2
    stat = f"anon 1\ninactive_file {10 * MIB}"
    write(groups / "pod", memory__max=100 * MIB, memory__current=70 * MIB, memory__stat=stat)
    assert meter.free_bytes() == 40 * MIB
    write(groups, memory__max=10 * MIB, memory__current=70 * MIB)
    assert meter.free_bytes() == 0


def test_a_limit_of_the_older_kind_of_group_counts_too(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self", cgroup="9:name=systemd:/\n4:cpu,memory:/elsewhere/box")
    limit = {"memory__limit_in_bytes": 30 * MIB, "memory__usage_in_bytes": 10 * MIB}
    write(groups / "memory", **limit)  # a container sees its own group as the root
    assert CpuMeter(proc, groups).free_bytes() == 20 * MIB


def test_an_error_of_a_step_reaches_the_caller_from_either_way_of_measuring(tmp_path: Path) -> None:
    def fails() -> None:
        raise ValueError("no")

    for proc in (Path("/proc"), tmp_path):
        with pytest.raises(ValueError, match="no"):
            CpuMeter(proc).peak_of(fails)
