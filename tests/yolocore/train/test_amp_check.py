"""The check before a run in reduced precision: what passes, what does not, and that nothing is left of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.loops import CPU
from tests.support.shapes import DEEP_MODEL, TINY_MODEL
from tests.support.shared import weights_dir
from yolocore.loss.detection import DetectionLoss
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.spec.zoo import zoo_text
from yolocore.train.amp_check import (
    AmpCheck,
    SyntheticBatch,
    check_amp,
    check_side,
    synthetic_batch,
    untouched,
)
from yolocore.train.precision import Precision, PrecisionName
from yolocore.weights.read import read_weights
from yolocore.weights.transfer import transfer

REDUCED: list[PrecisionName] = ["fp16", "bf16"]


def network_of(text: str = TINY_MODEL, num_classes: int | None = 2) -> Network:
    network = build_network(plan_architecture(parse_architecture(text), num_classes=num_classes))
    return network.to(memory_format=torch.channels_last)


def part(network: Network, name: str) -> Any:
    return network.model.get_submodule(name)


def loss_of(network: Network, **changes: Any) -> DetectionLoss:
    parts: dict[str, Any] = {"box": 0.05, "obj": 1.0, "cls": 0.5, **changes}
    return DetectionLoss(num_classes=network.head.num_classes, strides=network.strides.tolist(), **parts)


def batch_for(network: Network, side: int = 64, **changes: Any) -> SyntheticBatch:
    return synthetic_batch(
        2,
        (side, side),
        strides=[int(stride) for stride in network.strides.tolist()],
        anchors_grid=network.head.anchors.numpy(),
        num_classes=network.head.num_classes,
        anchor_t=4.0,
        device=CPU,
        **changes,
    )


def checked(network: Network, precision: PrecisionName, side: int = 64, **changes: Any) -> AmpCheck:
    batch = batch_for(network, side)
    loss = loss_of(network, **changes)
    return check_amp(network, loss, Precision(precision, CPU), batch.images, batch.targets)


@pytest.mark.parametrize("precision", REDUCED)
def test_a_sound_network_passes(precision: PrecisionName) -> None:
    verdict = checked(network_of(), precision)
    assert verdict.ok and verdict.reason is None and verdict.sound_in_fp32
    assert 0 < verdict.figures.loss_difference < 0.02
    assert 0 < verdict.figures.output_difference < 0.05


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("published", [False, True])
def test_the_public_small_model_passes_well_inside_the_tolerances(
    precision: PrecisionName, published: bool
) -> None:
    network = network_of(zoo_text("yolov5n"), None)
    if published:
        transfer(network, read_weights(weights_dir() / "yolov5n.pt").tensors, keep_anchors=False)
    verdict = checked(network, precision, side=check_side(32))
    assert verdict.ok, verdict
    assert verdict.figures.loss_difference < (0.005 if precision == "fp16" else 0.03)
    assert verdict.figures.output_difference < (0.01 if precision == "fp16" else 0.06)


def test_full_precision_needs_no_check() -> None:
    network = network_of()
    with torch.no_grad():
        part(network, "0.conv").weight.fill_(math.nan)
    assert checked(network, "fp32").ok


def test_an_overflow_is_found_and_its_module_named() -> None:
    network = network_of()
    with torch.no_grad():
        part(network, "3.conv").weight.mul_(1e7)
    verdict = checked(network, "fp16")
    assert not verdict.ok and verdict.sound_in_fp32
    assert verdict.reason == "the outputs are not finite, beginning at model.3.conv (Conv2d), in fp16"
    assert checked(network, "bf16").sound_in_fp32


def test_an_overflow_that_evaluation_does_not_show_is_found() -> None:
    network = network_of()
    part(network, "4").register_forward_hook(lambda module, _, out: out * (1e6 if module.training else 1))
    verdict = checked(network, "fp16")
    assert not verdict.ok and verdict.sound_in_fp32
    assert verdict.reason is not None
    assert verdict.reason.startswith("the loss is not finite, beginning at model.4 (C3)")


@pytest.mark.parametrize("precision", REDUCED)
def test_weights_that_are_broken_in_every_precision_are_told_as_such(precision: PrecisionName) -> None:
    network = network_of()
    with torch.no_grad():
        part(network, "5.conv").weight[0, 0, 0, 0] = math.nan
    verdict = checked(network, precision)
    assert not verdict.ok and not verdict.sound_in_fp32
    assert verdict.reason is not None
    assert "in fp32 as well" in verdict.reason and "model.5.conv" in verdict.reason


class Steep(torch.autograd.Function):
    """Leaves a value as it is and multiplies its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


@pytest.mark.parametrize(("factor", "ok"), [(3e3, True), (1e30, False)])
def test_gradients_may_overflow_as_long_as_some_scale_suits_them(factor: float, ok: bool) -> None:
    network = network_of()
    part(network, "4").register_forward_hook(lambda module, _, output: Steep.apply(output, factor))
    verdict = checked(network, "fp16")
    assert verdict.ok is ok
    if ok:
        assert verdict.figures.num_overflows > 0
        assert verdict.figures.scale == 65536 / 2**verdict.figures.num_overflows
    else:
        assert (verdict.figures.num_overflows, verdict.figures.scale) == (16, 1.0)
        assert verdict.reason == "the gradients are not finite at a scale of 1 in fp16"
        assert checked(network, "bf16").reason is None  # its range is that of fp32


def test_numbers_that_drift_apart_do_not_pass() -> None:
    network = network_of()

    def coarser(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return output * 1.5 if output.dtype == torch.float16 else output

    part(network, "10.m.0").register_forward_hook(coarser)
    verdict = checked(network, "fp16")
    assert not verdict.ok
    assert verdict.reason is not None and "off" in verdict.reason
    assert math.isfinite(verdict.figures.loss_reduced)


@pytest.mark.parametrize("spoil", [1.0, 1e7, math.nan])
def test_nothing_is_left_of_a_check(spoil: float) -> None:
    network = network_of()
    with torch.no_grad():
        part(network, "3.conv").weight[0].mul_(spoil)
    part(network, "2").register_forward_hook(lambda module, _, output: output + 1e-6 * torch.rand(1))
    network.train()
    part(network, "1.bn").eval()  # a frozen row's
    part(network, "0.conv").weight.requires_grad_(False)
    for parameter in part(network, "6").parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    batch, loss, precision = batch_for(network), loss_of(network, autobalance=True), Precision("fp16", CPU)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    gradients = [parameter.grad for parameter in network.parameters()]
    balance, state = loss.balance, precision.state_dict()
    torch.manual_seed(5)
    random, numpy_random = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # type: ignore[index]

    check_amp(network, loss, precision, batch.images, batch.targets)

    for name, value in network.state_dict().items():
        assert value.numpy().tobytes() == before[name].numpy().tobytes(), name
    assert [module.training for module in network.modules()] == modes
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert gradient is None or bool((gradient == 0.5).all())
    assert loss.balance == balance
    assert precision.state_dict() == state
    assert torch.equal(torch.get_rng_state(), random)
    assert np.random.get_state()[1].tobytes() == numpy_random  # type: ignore[index]


def test_what_a_pass_changes_is_put_back_after_an_error_too() -> None:
    network = network_of().train()
    before = part(network, "0.bn").running_mean.clone()
    with pytest.raises(RuntimeError, match="stop"), untouched(network, None, CPU):
        network.eval()
        part(network, "0.bn").running_mean.fill_(7)
        raise RuntimeError("stop")
    assert network.training and torch.equal(part(network, "0.bn").running_mean, before)


def test_a_made_up_batch_depends_on_its_seed_alone_and_reaches_every_level() -> None:
    network = network_of()
    one, same, other = (batch_for(network, 128, seed=seed) for seed in (0, 0, 1))
    assert one.images.shape == (2, 3, 128, 128) and one.images.dtype == torch.uint8
    assert one.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(one.images, same.images) and torch.equal(one.targets.box, same.targets.box)
    assert not torch.equal(one.images, other.images)
    assert min(one.targets.counts) > 0
    assert int(one.targets.cls.max()) < 2
    assert int(batch_for(network, noise=False).images.max()) == 0


def test_the_side_suits_the_deepest_row() -> None:
    assert [check_side(stride) for stride in (8, 32, 64, 96, 128)] == [128, 128, 128, 192, 256]
    assert checked(network_of(DEEP_MODEL), "fp16", side=check_side(64)).ok
