"""Builds a network from a plan: word by word, from an explicit table.

Everything the text said was checked by the plan; nothing here can fail on a user's mistake. Must not know
files or training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from yolocore.model import bottlenecks, layers
from yolocore.model.head import Detect, Segment
from yolocore.model.layers import BN_EPS, BN_MOMENTUM, Act
from yolocore.model.network import Network
from yolocore.spec.plan import Layer, Plan
from yolocore.spec.words import Activation

# Blocks that hold activations take the model's default one; the others take their arguments alone.
WITH_ACTIVATION: dict[str, Callable[..., nn.Module]] = {
    "Conv": layers.Conv,
    "DWConv": layers.DWConv,
    "CrossConv": layers.CrossConv,
    "SPP": layers.SPP,
    "SPPF": layers.SPPF,
    "Focus": layers.Focus,
    "Proto": layers.Proto,
    "Bottleneck": bottlenecks.Bottleneck,
    "BottleneckCSP": bottlenecks.BottleneckCSP,
    "C3": bottlenecks.C3,
    "C3x": bottlenecks.C3x,
    "C3TR": bottlenecks.C3TR,
    "C3SPP": bottlenecks.C3SPP,
    "C3Ghost": bottlenecks.C3Ghost,
    "GhostConv": bottlenecks.GhostConv,
    "GhostBottleneck": bottlenecks.GhostBottleneck,
    "TransformerBlock": bottlenecks.TransformerBlock,
}
PLAIN: dict[str, Callable[..., nn.Module]] = {
    "DWConvTranspose2d": layers.DWConvTranspose2d,
    "MixConv2d": layers.MixConv2d,
    "Contract": layers.Contract,
    "Expand": layers.Expand,
    "Concat": layers.Concat,
    "nn.ConvTranspose2d": nn.ConvTranspose2d,
    "nn.Upsample": nn.Upsample,
    "nn.MaxPool2d": nn.MaxPool2d,
    "nn.ZeroPad2d": nn.ZeroPad2d,
    "nn.BatchNorm2d": nn.BatchNorm2d,
    "nn.Identity": nn.Identity,
}
ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "nn.SiLU": nn.SiLU,
    "nn.ReLU": nn.ReLU,
    "nn.ReLU6": nn.ReLU6,
    "nn.LeakyReLU": nn.LeakyReLU,
    "nn.Hardswish": nn.Hardswish,
    "nn.Mish": nn.Mish,
    "nn.GELU": nn.GELU,
    "nn.ELU": nn.ELU,
    "nn.Sigmoid": nn.Sigmoid,
    "nn.Tanh": nn.Tanh,
    "nn.Identity": nn.Identity,
}


def build_network(plan: Plan, *, seed: int = 0) -> Network:
    """Return the network of a plan with fresh weights, drawn from `seed` and nothing else.

    Weights are PyTorch's defaults plus the head's prior biases; batch norms have eps 0.001, momentum 0.03.
    The process's own random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = assemble(plan)
    network.head.init_biases()
    return network


def assemble(plan: Plan) -> Network:
    """Return the network with PyTorch's default weights from the global generator, without prior biases.

    Under `torch.device("meta")` no memory is taken.
    """
    default = activation_factory(plan.architecture.activation or Activation())
    network = Network(plan, [_row(layer, plan, default) for layer in plan.layers])
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.eps, module.momentum = BN_EPS, BN_MOMENTUM
    return network


def activation_factory(activation: Activation) -> Act:
    """Return what makes one out-of-place activation module."""
    make = ACTIVATIONS[activation.name]
    return make if activation.value is None else partial(make, activation.value)


def _row(layer: Layer, plan: Plan, default: Act) -> nn.Module:
    if layer is plan.layers[-1]:
        return _head(layer, plan, default)
    if layer.repeats == 1:
        return _block(layer, default)
    return nn.Sequential(*(_block(layer, default) for _ in range(layer.repeats)))


def _block(layer: Layer, default: Act) -> nn.Module:
    args = {
        name: activation_factory(value) if isinstance(value, Activation) else value
        for name, value in layer.args.items()
        if name != "c1"
    }
    positional: tuple[Any, ...] = (layer.in_channels[0], args.pop("c2")) if "c2" in args else ()
    if layer.word in WITH_ACTIVATION:
        return WITH_ACTIVATION[layer.word](*positional, **args, default=default)
    return PLAIN[layer.word](*positional, **args)


def _head(layer: Layer, plan: Plan, default: Act) -> nn.Module:
    common = (plan.num_classes, plan.anchors_px, plan.strides, layer.in_channels)
    if layer.word == "Detect":
        return Detect(*common)
    return Segment(*common, layer.args["nm"], layer.args["npr"], default=default)
