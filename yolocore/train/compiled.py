"""The forward of training as one compiled graph, for those who want to pay its compilation.

Only the call is compiled: the module, its state dict, its copies and its hooks stay as they are. It must not
know the loop, nor what the network is made of.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from yolocore.spec.events import Log, Warned


class CompiledForward:
    """Calls a network through `torch.compile`, without a break in its graph.

    It is compiled at the first call, and again for what no graph fits: a smaller last batch, another size
    (the second one gives a graph for any), another precision, a new fp32 island. `tell` gets how long that
    took, and where the compiler fails, which ends it: the run goes on uncompiled.
    """

    def __init__(
        self, network: nn.Module, tell: Callable[[Log | Warned], None], *, backend: str | Callable[..., Any]
    ) -> None:
        import torch._dynamo  # takes seconds that other runs need not wait for
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        self._network = network
        self._tell = tell
        self._failures = (TorchDynamoException, FailOnRecompileLimitHit)
        self._forward: Callable[[Tensor], Any] = torch.compile(
            network.forward, fullgraph=True, backend=backend
        )
        self._stats = torch._dynamo.utils.counters["stats"]
        self.is_on = True

    def __call__(self, images: Tensor) -> Any:
        """Return what the network returns for images (b, 3, h, w)."""
        if not self.is_on:
            return self._network(images)
        num_graphs, began = self._stats["unique_graphs"], time.monotonic()
        try:
            # Both directions at once, so that the time below is all there is.
            with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
                output = self._forward(images)
        except self._failures as error:
            self.is_on = False
            why = " ".join(str(error).split("\n")[:2]) or type(error).__name__
            self._tell(Warned(code="COMPILE_OFF", message=f"the run goes on uncompiled: {why}"))
            return self._network(images)
        if self._stats["unique_graphs"] != num_graphs:
            shape, seconds = "x".join(str(side) for side in images.shape), time.monotonic() - began
            self._tell(Log(message=f"compiled the network for {shape} images in {seconds:.1f} s"))
        return output
