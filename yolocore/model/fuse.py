"""Folds batch norms into convolutions, for networks that are only looked at.

Must not know where the weights come from.
"""

from __future__ import annotations

import copy

import torch

from yolocore.model.layers import Conv
from yolocore.model.network import Network


def fuse(network: Network) -> Network:
    """Fold every Conv's batch norm into its convolution, in place and without gradients; returns the network.

    Batch norms that stand alone (in BottleneckCSP, MixConv2d, as rows) stay.
    """
    for module in network.modules():
        if isinstance(module, Conv):
            module.fold()
    return network


def folded_copy(network: Network) -> Network:
    """Return a folded copy in eval mode, channels-last, without gradients; the network stays as it is."""
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    fuse(twin)
    return twin.to(memory_format=torch.channels_last)
