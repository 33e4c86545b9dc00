"""Networks against golden numbers: keys, counts, raw maps, gradients, decoding, folding, bias priors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.fidelity.harness import (
    Case,
    architecture_text,
    assert_close,
    cases,
    deviation,
    fill_recipe,
    flatten,
    skip_case,
    uniform,
)
from yolocore.model.build import build_network
from yolocore.model.fuse import fuse
from yolocore.model.network import Network
from yolocore.model.tta import predict_augmented
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import Plan, plan_architecture

DOUBLE = 1e-6


def plan_of(case: Case) -> Plan:
    """Return the plan of a case, with the habit of the reference for which there is a switch."""
    arch = parse_architecture(architecture_text(case.meta), source=case.name)
    return plan_architecture(
        arch,
        num_classes=case.meta.get("nc"),
        anchors=case.meta.get("anchors"),
        keep_output_width=True,
    )


def pictures(case: Case, name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(uniform(name, math.prod(shape)).reshape(shape))


def sides(imgsz: Any) -> tuple[int, int]:
    return (imgsz, imgsz) if isinstance(imgsz, int) else (imgsz[0], imgsz[1])


def refill(network: Network) -> None:
    fill_recipe(network.state_dict())


def norms(network: Network) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def check_outputs(case: Case, prefix: str, value: Any, root: str = "y") -> None:
    """Compare every tensor of an output with its shape, its statistics and its samples."""
    expected = case.outputs
    named = dict(flatten(value, root))
    known = {key.rsplit(".", 1)[0] for key in expected if key.startswith(f"{prefix}.{root}")}
    assert known == {f"{prefix}.{name}" for name in named}
    for name, tensor in named.items():
        key, array = f"{prefix}.{name}", tensor.detach().numpy()
        assert list(array.shape) == expected[f"{key}.shape"].tolist(), key
        flat = array.reshape(-1)
        if f"{key}.full" in expected:
            assert_close(array, expected[f"{key}.full"], DOUBLE, key)
        else:
            assert_close(flat[expected[f"{key}.idx"]], expected[f"{key}.val"], DOUBLE, key)
        stats = [flat.sum(), np.abs(flat).sum(), np.sqrt((flat**2).sum()), flat.min(), flat.max()]
        # A sum of positive and negative numbers cancels: its error scales with the sum of magnitudes.
        scale = 1 + expected[f"{key}.stats"][1]
        assert np.abs(np.array(stats) - expected[f"{key}.stats"]).max() <= DOUBLE * scale, key


def check_description(case: Case, network: Network) -> None:
    plan, result = network.plan, case.result
    state = network.state_dict()
    kinds = {torch.float32: "float32", torch.int64: "int64"}
    described = [[key, list(value.shape), kinds[value.dtype]] for key, value in state.items()]
    assert described == result["state_dict"]
    assert [(key, shape) for key, shape, _ in described] == [(k, list(s)) for k, s in plan.state_entries]
    assert [name for name, _ in network.named_parameters()] == result["param_order"]
    assert sum(p.numel() for p in network.parameters()) == result["n_params"] == plan.num_parameters
    rows = [[layer.index, layer.written_from, layer.num_parameters] for layer in plan.layers]
    wanted = [[i, tuple(f) if isinstance(f, list) else f, count] for i, f, _, count in result["rows"]]
    assert rows == wanted
    assert list(plan.save) == result["save"]
    assert list(plan.strides) == network.strides.tolist() == result["stride"]
    assert network.head.anchors.tolist() == result["anchors_grid"]
    assert [[list(a) for a in level] for level in plan.anchors_px] == result["anchors_pixels"]
    assert (network.head.num_classes, network.head.num_outputs) == (result["nc"], result["no"])
    assert (network.head.num_anchors, network.head.num_levels) == (result["na"], result["nl"])
    assert all([[bn.eps, bn.momentum]] == result["bn_eps_momentum"] for bn in norms(network))


def check_bias_priors(case: Case, network: Network) -> None:
    convs = [conv for conv in network.head.m if isinstance(conv, nn.Conv2d) and conv.bias is not None]
    for conv in convs:
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    network.head.init_biases()
    for i, conv in enumerate(convs):
        assert_close(conv.bias.detach(), case.outputs[f"bias_init.{i}"], DOUBLE, f"bias_init.{i}")  # type: ignore[union-attr]


@torch.no_grad()
def check_single_precision(case: Case, network: Network, x: torch.Tensor) -> None:
    """In float32, channels-last, the raw maps lose no more than twenty times what the reference loses."""
    refill(network)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, tensor in flatten(network(x.float().contiguous(memory_format=torch.channels_last))):
        key, flat = f"train.{name}", tensor.reshape(-1).double().numpy()
        places = case.outputs.get(f"{key}.idx", np.arange(flat.size))
        wanted = case.outputs.get(f"{key}.val", case.outputs.get(f"{key}.full")).reshape(-1)
        error = np.abs(flat[places] - wanted).max()
        assert error <= 20 * case.result["ref_f32_max_abs_err"][key], key


def check_training(case: Case, network: Network, x: torch.Tensor) -> None:
    refill(network)
    network.train()
    output = network(x)
    check_outputs(case, "train", output)
    state = network.state_dict()
    buffers = [state[key] for key in case.result["bn_keys"]]
    assert_close([b.sum() for b in buffers], case.outputs["train.bn_after_sum"], DOUBLE, "bn_after_sum")
    assert_close([b.norm() for b in buffers], case.outputs["train.bn_after_l2"], DOUBLE, "bn_after_l2")
    if not case.meta.get("grads", True):
        return
    loss = torch.zeros((), dtype=torch.float64)
    for name, tensor in flatten(output):
        weight = torch.from_numpy(2 * uniform(f"gradw:{case.name}:{name}", tensor.numel()) - 1)
        loss = loss + (tensor * weight.view(tensor.shape)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.norm() for p in network.parameters() if p.grad is not None]
    assert_close(gradients, case.outputs["train.grad_l2"], DOUBLE, "grad_l2")
    network.zero_grad()


@torch.no_grad()
def check_evaluation(case: Case, network: Network, x: torch.Tensor) -> None:
    if case.meta.get("raw"):
        refill(network)
        check_outputs(case, "eval_raw", network.eval()(x))
    refill(network)
    for bn in norms(network):
        bn.momentum = 1.0
    network.train()(x)
    for bn in norms(network):
        bn.momentum = 0.03
    network.eval()
    check_outputs(case, "eval_cal", network(x))
    if case.meta.get("tta"):
        view = pictures(case, f"input-tta:{case.name}", 1, x.shape[1], 128, 128)
        check_outputs(case, "eval_cal_tta", predict_augmented(network, view))


def check_folding(case: Case, network: Network, x: torch.Tensor) -> None:
    """The calibrated network is still in place; folded it must compute the same from the expected tensors."""
    before = network(x)[0]
    fuse(network)
    state = network.state_dict()
    left_out = ("anchors", "num_batches_tracked")
    assert [key for key in state if not key.endswith(left_out)] == case.result["fused_keys"]
    assert not any(p.requires_grad for key, p in network.named_parameters() if key.endswith("conv.bias"))
    assert sum(p.numel() for p in network.parameters()) == case.result["fused_n_params"]
    tensors = [state[key] for key in case.result["fused_keys"]]
    magnitude = np.array([tensor.abs().sum() for tensor in tensors])
    sums = np.array([tensor.sum() for tensor in tensors])
    assert (np.abs(sums - case.outputs["fused.sum"]) <= 1e-4 * (1 + magnitude)).all()
    assert_close([tensor.norm() for tensor in tensors], case.outputs["fused.l2"], 1e-4, "fused.l2")
    assert_close(network(x)[0].detach(), before.detach(), 1e-9, "folded output")


@pytest.mark.parametrize("case", cases("models"), ids=str)
def test_models(case: Case) -> None:
    reason = deviation(case, "case")
    if reason:
        skip_case(case, reason)
    plan = plan_of(case)
    network = build_network(plan)
    check_description(case, network)
    check_bias_priors(case, network)
    x = pictures(case, f"input:{case.name}", case.meta["bs"], plan.in_channels, *sides(case.meta["imgsz"]))
    check_single_precision(case, network, x)
    network.double()
    check_training(case, network, x)
    check_evaluation(case, network, x)
    check_folding(case, network, x)
