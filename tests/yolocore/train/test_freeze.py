"""Frozen rows: how they are named, and that nothing moves them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.loops import CPU
from tests.support.shapes import TINY_MODEL
from yolocore.errors import ConfigError
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.ema import Ema
from yolocore.train.freeze import freeze, hold
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision, PrecisionName


def tiny() -> Network:
    return build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))


def test_row_one_is_not_row_ten() -> None:
    network = tiny()
    norms = freeze(network, (1,))
    frozen = [name for name, value in network.named_parameters() if not value.requires_grad]
    assert frozen == ["model.1.conv.weight", "model.1.bn.weight", "model.1.bn.bias"]
    assert norms == [network.model[1].bn]
    assert freeze(tiny(), ()) == []


def test_a_rest_without_weights_is_refused_and_the_network_left_as_it_was() -> None:
    network = tiny()
    with pytest.raises(ConfigError, match="nothing is left"):
        freeze(network, [row for row in range(len(network.model)) if row not in (7, 8)])  # these have none
    assert all(value.requires_grad for value in network.parameters())


def train_three_steps(
    network: Network, norms: list[torch.nn.Module], optimizer: str, precision: str
) -> Ema[Network]:
    stepper = build_optimizer(network, name=optimizer, lr=0.05, momentum=0.9, weight_decay=0.1)  # type: ignore[arg-type]
    scaled = Precision(precision, CPU)  # type: ignore[arg-type]
    average = Ema(network)
    for step in range(3):
        network.train()
        hold(norms)
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(step))
        with scaled.autocast():
            maps = network(images)
        scaled.backward(torch.stack([raw.float().square().mean() for raw in maps]).sum())
        scaled.step(stepper, list(network.parameters()), 10.0)
        stepper.zero_grad()
        average.update()
    return average


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("SGD", "fp32"), ("Adam", "fp32"), ("AdamW", "fp32"), ("SGD", "fp16")]
)
def test_frozen_rows_and_their_statistics_stay_and_the_others_move(
    optimizer: str, precision: PrecisionName
) -> None:
    network = tiny()
    rows = (0, 1, 2)
    with torch.no_grad():  # decay and momentum must have something to pull at
        for value in network.parameters():
            value.add_(0.01)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    average = train_three_steps(network, freeze(network, rows), optimizer, precision)

    def is_frozen(name: str) -> bool:
        return name.startswith(tuple(f"model.{row}." for row in rows))

    for name, value in network.state_dict().items():
        if is_frozen(name):
            assert torch.equal(value, before[name]), name
            assert torch.equal(average.network.state_dict()[name], before[name]), name
        elif "anchors" not in name:
            assert moved(value, before[name]), name


def moved(value: Tensor, before: Tensor) -> bool:
    return not torch.equal(value, before)
