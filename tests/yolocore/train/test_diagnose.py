"""The search for the module that leaves the range, on a real network made to leave it at a known place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.loops import CPU, batch_of
from tests.support.shapes import TINY_MODEL, draw_shapes
from yolocore.data.collate import Batch, Item
from yolocore.loss.detection import BatchTargets, DetectionLoss, to_tensors
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.diagnose import (
    Finding,
    broken_images,
    data_is_finite,
    find_overflow,
    finite_in_fp32,
)
from yolocore.train.islands import Islands
from yolocore.train.precision import Precision

FP16 = Precision("fp16", CPU)
CONV = "model.3.conv"
HEAD = "model.10.m.0"


class Scene:
    """A tiny network in training, its loss, and one batch of two pictures."""

    def __init__(self, model: str = TINY_MODEL) -> None:
        self.network = build_network(plan_architecture(parse_architecture(model), num_classes=2))
        self.network.train()
        self.loss = DetectionLoss(
            num_classes=2, strides=self.network.strides.tolist(), box=0.05, obj=1.0, cls=0.5, autobalance=True
        )
        rng = np.random.default_rng(0)
        items = []
        for number in range(2):
            image, rows = draw_shapes(rng, 64)
            items.append(Item(image, np.array(rows, dtype=np.float32), f"{number}.png"))
        self.batch: Batch = batch_of(items, self.network, 4.0)
        assert self.batch.matches is not None
        self.images = self.batch.images.float() / 255
        self.targets: BatchTargets = to_tensors(self.batch.matches)

    def enlarge(self, name: str, factor: float) -> None:
        with torch.no_grad():
            self.network.get_parameter(f"{name}.weight").mul_(factor)

    def find(self, scale: float = 1.0, precision: Precision = FP16) -> Finding | None:
        return find_overflow(
            self.network, self.loss, self.images, self.targets, precision=precision, scale=scale
        )

    def is_finite_in_fp32(self) -> bool:
        return finite_in_fp32(self.network, self.loss, self.images, self.targets)


@contextmanager
def unchanged(scene: Scene) -> Iterator[None]:
    """Assert that a scene, its unstepped gradients and the random state come out bit for bit."""
    for parameter in scene.network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    state = copy.deepcopy(scene.network.state_dict())
    gradients = {name: value.grad.clone() for name, value in scene.network.named_parameters()}  # type: ignore[union-attr]
    balance, random_state = scene.loss.balance, torch.get_rng_state()
    yield
    for name, value in scene.network.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, value in scene.network.named_parameters():
        assert value.grad is not None and torch.equal(value.grad, gradients[name]), name
    assert scene.loss.balance == balance
    assert torch.equal(torch.get_rng_state(), random_state)
    for module in scene.network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    for parameter in scene.network.parameters():
        assert not parameter._backward_hooks


def test_a_sound_batch_gives_no_finding() -> None:
    scene = Scene()
    with unchanged(scene):
        assert scene.find() is None
        assert scene.is_finite_in_fp32()


@pytest.mark.parametrize("name", ["model.0.conv", CONV, "model.4.m.0.cv2.conv"])
def test_the_first_module_whose_output_overflows_is_named(name: str) -> None:
    scene = Scene()
    scene.enlarge(name, 1e8)
    with unchanged(scene):
        found = scene.find()
        assert found is not None and (found.kind, found.module) == ("forward", name)
        assert scene.is_finite_in_fp32()
    Islands().add(name, scene.network)
    assert scene.find() is None


def test_an_activation_in_place_hides_nothing() -> None:
    scene = Scene()
    for module in scene.network.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = True
    scene.enlarge(CONV, 1e8)
    found = scene.find()
    assert found is not None and (found.kind, found.module) == ("forward", CONV)
    scene = Scene()
    for module in scene.network.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = True
    scene.enlarge(HEAD, 100)
    with unchanged(scene):
        found = scene.find(scale=65536.0)
        assert found is not None and (found.kind, found.module) == ("backward", HEAD)


class Doubling(nn.Module):
    """A block with an overflow of its own, between finite parts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        return x * 4e4 + x * 4e4


def test_a_sum_that_overflows_is_the_fault_of_the_block_around_it() -> None:
    scene = Scene()
    scene.network.model[1] = Doubling(scene.network.model[1])
    with torch.no_grad():
        scene.network.get_parameter("model.1.inner.bn.bias").fill_(1.0)
    found = scene.find()
    assert found is not None and (found.kind, found.module) == ("forward", "model.1")


def test_islands_are_found_one_after_the_other_until_the_gradients_fit() -> None:
    scene = Scene()
    scene.enlarge(HEAD, 30)
    islands = Islands()
    with unchanged(scene):
        assert scene.find(scale=256.0) is None
        while (found := scene.find(scale=2048.0)) is not None:
            assert found.kind == "backward" and found.module is not None
            assert found.module not in islands.names and len(islands) < 6
            islands.add(found.module, scene.network)
    assert len(islands) >= 1


def test_what_hands_an_island_its_input_is_the_next_to_be_named() -> None:
    scene = Scene()
    scene.enlarge(HEAD, 100)
    found = scene.find(scale=65536.0)
    assert found is not None and found.module == HEAD
    Islands([HEAD]).apply(scene.network)
    found = scene.find(scale=65536.0)
    assert found is not None and (found.kind, found.module) == ("backward", "model.9.cv3.act")


def test_a_gradient_of_weights_alone_is_found() -> None:
    scene = Scene()
    scene.images = scene.images * 2e4
    assert scene.find() is None
    found = scene.find(scale=2.0**20)
    assert found is not None and found.kind == "backward"
    assert found.module is not None


class SteepLoss(DetectionLoss):
    """A loss whose value is finite and whose gradient is beyond float16."""

    steepness = 1e10

    def __call__(self, maps: Sequence[Tensor], targets: BatchTargets) -> tuple[Tensor, Tensor]:
        total, items = super().__call__(maps, targets)
        return total * self.steepness, items


def test_the_loss_is_named_where_its_own_gradient_comes_first() -> None:
    scene = Scene()
    scene.loss.__class__ = SteepLoss
    with unchanged(scene):
        found = scene.find()
        assert found is not None and (found.kind, found.module) == ("loss", None)
        assert scene.is_finite_in_fp32()


def test_the_loss_is_named_where_the_output_is_finite_and_the_loss_is_not() -> None:
    scene = Scene()
    scene.loss.__class__ = type("Endless", (SteepLoss,), {"steepness": float("inf")})
    found = scene.find()
    assert found is not None and (found.kind, found.module) == ("loss", None)
    assert not scene.is_finite_in_fp32()


def test_rates_gone_mad_are_not_finite_in_fp32_either() -> None:
    scene = Scene()
    with torch.no_grad():
        scene.network.get_parameter("model.3.bn.weight").fill_(float("inf"))
    with unchanged(scene):
        found = scene.find()
        assert found is not None and found.module == "model.3.bn"
        assert not scene.is_finite_in_fp32()


def test_data_that_is_not_finite_is_nobodys_fault() -> None:
    scene = Scene()
    assert data_is_finite(scene.images, scene.batch.targets)
    scene.images[1, 0, 5, 5] = torch.nan
    with unchanged(scene):
        found = scene.find()
        assert found is not None and (found.kind, found.module) == ("forward", None)
    assert not data_is_finite(scene.images, scene.batch.targets)
    assert broken_images(scene.images, scene.batch.targets) == [1]


def test_labels_that_are_not_finite_name_their_image() -> None:
    scene = Scene()
    rows = scene.batch.targets.clone()
    rows[0, 4] = torch.inf
    assert broken_images(scene.images, rows) == [0]
    assert not data_is_finite(scene.images, rows)


def test_a_network_of_bfloat16_has_the_same_findings() -> None:
    scene = Scene()
    scene.enlarge(CONV, 1e38)
    scene.enlarge(CONV, 1e3)
    found = scene.find(precision=Precision("bf16", CPU))
    assert found is not None and found.module == CONV


def test_an_exception_in_the_pass_leaves_the_network_as_it_was() -> None:
    scene = Scene()
    network: Network = scene.network
    scene.loss.__class__ = type("Broken", (DetectionLoss,), {"__call__": lambda *given: 1 / 0})
    with unchanged(scene):
        with pytest.raises(ZeroDivisionError):
            scene.find()
        assert network.training
