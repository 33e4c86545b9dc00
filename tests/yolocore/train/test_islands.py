"""Islands of float32: what becomes one, and that copies, folded copies and state dicts agree about it."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from tests.support.shapes import TINY_MODEL
from yolocore.model.build import build_network
from yolocore.model.fuse import folded_copy
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.ema import Ema
from yolocore.train.islands import Islands, is_island, sink

CONV, NORM = "model.3.conv", "model.3.bn"
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tiny_network() -> Network:
    return build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))


def loud_network() -> Network:
    """Return a network whose fourth row leaves the range of float16 and is brought back by its norm."""
    network = tiny_network()
    with torch.no_grad():
        network.get_parameter(f"{CONV}.weight").mul_(1e7)
    return network


def under_autocast(network: Network, dtype: torch.dtype = torch.float16) -> list[torch.Tensor]:
    with torch.autocast("cpu", dtype=dtype):
        output = network(IMAGES)
    maps: list[torch.Tensor] = output if network.training else output[-1]
    return maps


def islands_of(network: Network) -> list[str]:
    return [name for name, module in network.named_modules() if is_island(module)]


def is_finite(maps: list[torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(raw).all()) for raw in maps)


def test_an_island_holds_what_float16_cannot() -> None:
    network = loud_network()
    assert not is_finite(under_autocast(copy.deepcopy(network)))
    Islands().add(CONV, network)
    assert is_finite(under_autocast(network))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_only_the_island_is_in_float32(dtype: torch.dtype) -> None:
    network = tiny_network()
    Islands([CONV]).apply(network)
    seen: dict[str, torch.dtype] = {}
    for name in ("model.1.conv", CONV, "model.5.conv"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.dtype})
        )
    under_autocast(network, dtype)
    assert seen == {"model.1.conv": dtype, CONV: torch.float32, "model.5.conv": dtype}


def test_without_autocast_an_island_changes_no_bit() -> None:
    network = tiny_network()
    before = copy.deepcopy(network)(IMAGES)
    Islands([CONV, "model.2", "model.10"]).apply(network)
    for one, other in zip(network(IMAGES), before, strict=True):
        assert torch.equal(one, other)


def test_an_island_adds_nothing_to_the_state() -> None:
    network, plain = tiny_network(), tiny_network()
    Islands([CONV, NORM, "model.4"]).apply(network)
    assert list(network.state_dict()) == list(plain.state_dict())
    network.load_state_dict(plain.state_dict())


def test_copies_are_islands_too() -> None:
    network = tiny_network()
    islands = Islands()
    islands.add(CONV, network)
    assert islands_of(Ema(network).network) == [CONV]
    assert islands_of(folded_copy(network.eval())) == [CONV]


@pytest.mark.parametrize("name", [CONV, NORM])
def test_a_folded_convolution_is_an_island_if_its_norm_was_one(name: str) -> None:
    network = loud_network()
    network.get_submodule(NORM).running_var.fill_(1.0)  # type: ignore[operator]
    network.eval()
    assert not is_finite(under_autocast(folded_copy(network)))
    Islands().add(name, network)
    folded = folded_copy(network)
    assert islands_of(folded) == [CONV]
    assert folded.get_parameter(f"{CONV}.bias") is not None
    afterwards = folded_copy(tiny_network().eval())
    Islands([name]).apply(afterwards)
    assert islands_of(afterwards) == [CONV]


def test_islands_are_made_again_from_plain_names() -> None:
    network, average = tiny_network(), tiny_network()
    islands = Islands()
    islands.add(CONV, network, average)
    islands.add("model.4.cv1.act", network, average)
    islands.add(CONV, network, average)
    assert len(islands) == 2
    names = json.loads(json.dumps(islands.names))
    fresh = tiny_network()
    Islands(["model.0.conv"]).apply(fresh)
    again = Islands()
    again.load(names, fresh)
    again.apply(fresh)
    assert again.names == names
    assert islands_of(fresh) == islands_of(network) == islands_of(average) == names


def test_a_network_without_its_islands_is_as_before() -> None:
    network = tiny_network()
    kinds = [type(module) for module in network.modules()]
    Islands([CONV, NORM, "model.10"]).apply(network)
    assert len(islands_of(network)) == 3
    sink(network)
    assert [type(module) for module in network.modules()] == kinds
