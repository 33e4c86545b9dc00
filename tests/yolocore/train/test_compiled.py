"""The compiled forward: one graph without a break, the same numbers, plain names, and the way back."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import do_run, newest_checkpoint, request
from tests.support.shapes import TINY_MODEL, write_shapes
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.config import parse_config
from yolocore.spec.events import Log, Warned
from yolocore.spec.plan import plan_architecture
from yolocore.spec.zoo import zoo_text
from yolocore.train.checkpoint import load_checkpoint
from yolocore.train.compiled import CompiledForward
from yolocore.train.ema import Ema
from yolocore.train.islands import Islands
from yolocore.train.request import RunSettings

GROUPED = TINY_MODEL.replace("Conv, [24, 3, 2]", "DWConv, [24, 3, 2]").replace("[-1, 4]", "[-1, 4, 4]")


class Graphs:
    """A backend that runs graphs as they are and keeps them."""

    def __init__(self) -> None:
        self.found: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, _example: Any) -> Any:
        self.found.append(graph)
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    logging.getLogger("torch.__trace").propagate = False  # or pytest keeps thousands of records
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def network_of(text: str) -> Network:
    assert text is not TINY_MODEL
    return build_network(plan_architecture(parse_architecture(text)), seed=0).train()


@pytest.mark.parametrize("text", [zoo_text("yolov5n"), GROUPED], ids=["yolov5n", "grouped and routed"])
def test_the_network_is_one_graph_and_gives_the_same(text: str) -> None:
    network, twin, told = network_of(text), network_of(text), list[Log | Warned]()
    graphs = Graphs()
    forward = CompiledForward(network, told.append, backend=graphs)
    images = torch.rand(2, 3, 64, 64)
    for _ in range(2):
        maps = forward(images)
        for ours, plain in zip(maps, twin(images), strict=True):
            assert torch.equal(ours, plain)
    sum(raw.sum() for raw in maps).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert len(graphs.found) == 1 and forward.is_on
    (line,) = told
    assert isinstance(line, Log)
    assert re.fullmatch(r"compiled the network for 2x3x64x64 images in \d+\.\d s", line.message)


def test_names_and_copies_stay_plain() -> None:
    network = network_of(GROUPED)
    names = list(network.state_dict())
    forward = CompiledForward(network, lambda event: None, backend="eager")
    forward(torch.rand(1, 3, 64, 64))
    assert list(network.state_dict()) == names == list(Ema(network).network.state_dict())


def test_an_island_is_compiled_in() -> None:
    graphs, network = Graphs(), network_of(GROUPED)
    forward, images = CompiledForward(network, lambda event: None, backend=graphs), torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forward(images)
        Islands().add("model.2", network)
        maps, plain = forward(images), network(images)
    assert all(torch.equal(ours, other) for ours, other in zip(maps, plain, strict=True))
    assert len(graphs.found) == 2 and forward.is_on


def test_a_compiler_that_fails_is_told_once_and_done_without() -> None:
    def broken(graph: Any, example: Any) -> Any:
        raise OSError("there is no compiler")

    network, told = network_of(GROUPED), list[Log | Warned]()
    forward, images = CompiledForward(network, told.append, backend=broken), torch.rand(1, 3, 64, 64)
    twin = network_of(GROUPED)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(forward(images), twin(images), strict=True))
    (warning,) = told
    assert isinstance(warning, Warned) and warning.code == "COMPILE_OFF"
    assert "there is no compiler" in warning.message


def test_a_hint_decides_where_there_is_one() -> None:
    for hint, setting, outcome in ((None, True, True), (None, False, False), (True, False, True)):
        hints = parse_config({"runtime": {"compile": hint}}).runtime
        assert RunSettings(compile=setting).within(hints).compile is outcome
    off = parse_config({"runtime": {"compile": False}})
    assert RunSettings(compile=True).within(off.runtime).compile is False
    assert off.config_hash() == parse_config({}).config_hash()


def test_a_run_is_compiled_and_its_files_are_as_ever(tmp_path: Path) -> None:
    data_yaml = write_shapes(tmp_path / "data", num_train=3, num_val=2)
    plain = do_run(request(tmp_path / "plain", data_yaml, epochs=1))
    asked = request(tmp_path / "compiled", data_yaml, epochs=1, runtime={"compile": True})
    told = do_run(asked, compile_backend="eager")
    assert any("compiled the network" in log.message for log in told.of("log"))
    assert not any("compiled the network" in log.message for log in plain.of("log"))
    states = [load_checkpoint(newest_checkpoint(tmp_path / name)) for name in ("plain", "compiled")]
    assert list(states[0].model) == list(states[1].model) and list(states[0].ema) == list(states[1].ema)
    for key, value in states[0].model.items():
        torch.testing.assert_close(states[1].model[key], value)
