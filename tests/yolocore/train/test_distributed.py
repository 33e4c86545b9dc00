"""Two processes that train one network: the same numbers as one, and one fate."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support import ranks
from tests.support.loops import CPU
from yolocore.errors import ConfigError, CoreError, DatasetError
from yolocore.train.distributed import check_devices, check_sync_bn, convert_sync_batchnorm
from yolocore.train.optim import parameter_groups
from yolocore.train.processes import RankError, lead, spawn

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what two processes found, rank by rank; starting them is dear, so they do everything at once."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn(ranks.WORLD_SIZE, ranks.check_everything, (folder,))
    assert not multiprocessing.active_children()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks.WORLD_SIZE)]


def same(left: Any, right: Any) -> bool:
    """Tell whether two nests of tensors are equal bit for bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return torch.equal(left, right)


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Return the largest difference, relative to the largest gradient."""
    assert left.keys() == right.keys() and left
    largest = max(float(value.abs().max()) for value in right.values())
    return max(float((left[key] - right[key]).abs().max()) for key in left) / largest


def test_a_value_of_rank_0_reaches_all(found: Found) -> None:
    assert [each["said"] for each in found] == [{"rank": 0}, {"rank": 0}]


def test_gradients_are_the_sum_over_the_ranks_shares(found: Found) -> None:
    network = ranks.exact_network()
    halves = [
        ranks.gradients_of(
            network, network, ranks.exact_batch(ranks.share(ranks.items(4, seed=1), rank), network)
        )
        for rank in range(ranks.WORLD_SIZE)
    ]
    expected = {name: halves[0][name] + halves[1][name] for name in halves[0]}
    assert same(found[0]["halves"], found[1]["halves"])
    assert distance(found[0]["halves"], expected) < 1e-6


def test_gradients_are_those_of_the_joint_batch_where_shares_match_alike(found: Found) -> None:
    network = ranks.exact_network()
    joint = ranks.exact_batch(ranks.items(4, seed=1, alike=True), network)
    assert distance(found[0]["alike"], ranks.gradients_of(network, network, joint)) < 1e-6


def test_ranks_stay_equal_bit_for_bit(found: Found) -> None:
    for name in ("parameters", "momentum", "average", "norms"):
        assert same(found[0][name], found[1][name]), name
    assert found[0]["moved"]


def test_an_overflow_on_one_rank_skips_the_step_on_all(found: Found) -> None:
    for each in found:
        fp16 = each["fp16"]
        assert fp16["finite"] == [True, True]
        assert fp16["scales"] == [256.0, 128.0, 128.0]
        assert torch.equal(fp16["weights"][0], fp16["start"])
        assert not torch.equal(fp16["weights"][1], fp16["start"])
    assert same(found[0]["fp16"]["weights"][1], found[1]["fp16"]["weights"][1])


def test_all_ranks_take_the_decisions_of_rank_0_and_hear_that_they_have_drifted_apart(found: Found) -> None:
    for each in found:
        assert each["accord"] == {"answers": ["stop", 0, "stop", "pause"], "told": ["warning", "warning"]}


def test_a_named_error_of_a_rank_comes_back_as_itself() -> None:
    with pytest.raises(DatasetError) as caught, lead(2, ranks.fail_by_name, (1,)) as group:
        group.broadcast(None)
        group.barrier()
    error = caught.value
    assert (error.code, error.message, error.place, error.value) == ("NO_LABELS", "no image", "train", "7")
    assert error.problems[0].row == 3
    assert "fail_by_name" in str(error.__cause__)
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("target", "what"), [(ranks.fail_by_mistake, "a thing that cannot be"), (ranks.be_killed, "exit code -9")]
)
def test_a_rank_that_dies_ends_all(target: Any, what: str) -> None:
    with pytest.raises(RankError, match=what), lead(2, target) as group:
        group.barrier()
    assert not multiprocessing.active_children()


def test_what_rank_0_raises_ends_all() -> None:
    with pytest.raises(KeyError), lead(2, ranks.wait_for_ever):
        raise KeyError("mine")
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()


def test_ranks_die_with_their_parent() -> None:
    program = (
        "import os, signal\n"
        "from tests.support import ranks\n"
        "from yolocore.train.processes import lead\n"
        "if __name__ == '__main__':\n"
        "    with lead(2, ranks.wait_for_ever) as group:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    began = time.monotonic()
    ended = subprocess.run(  # returns when nobody holds its output any more, the other rank included
        [sys.executable, "-c", program],
        capture_output=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert ended.returncode == -9
    assert time.monotonic() - began < 60


def test_batch_norms_over_ranks_keep_their_keys_values_and_constants() -> None:
    network, plain = ranks.tiny_network(), ranks.tiny_network()
    groups = parameter_groups(network)
    before = dict(network.named_parameters())
    converted = convert_sync_batchnorm(network)
    assert converted is network
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    assert norms and all(type(module) is nn.SyncBatchNorm for module in norms)
    assert {(module.eps, module.momentum) for module in norms} == {(0.001, 0.03)}
    assert list(network.state_dict()) == list(plain.state_dict())
    assert same(dict(network.state_dict()), dict(plain.state_dict()))
    assert all(value is before[name] for name, value in network.named_parameters())
    assert parameter_groups(network) == groups
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network.eval()(images)[0], plain.eval()(images)[0])


def test_batch_norms_over_ranks_need_cuda() -> None:
    check_sync_bn(torch.device("cuda", 0), 2)
    with pytest.raises(ConfigError, match="SyncBatchNorm needs CUDA") as caught:
        check_sync_bn(CPU, 2)
    assert isinstance(caught.value, CoreError)
    assert (caught.value.code, caught.value.place) == ("CONFIG_INVALID", "/sync_bn")


def test_each_process_needs_a_device_of_its_own() -> None:
    check_devices("cpu", 64)
    with pytest.raises(ConfigError, match="device of its own") as caught:
        check_devices("cuda", torch.cuda.device_count() + 1)
    assert caught.value.place == "/world_size"
