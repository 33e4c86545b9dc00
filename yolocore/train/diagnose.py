"""Where a batch leaves the range of its precision: which module, going forward or back.

One forward and one backward pass under hooks that look at every value; far too slow for training and made
for the one batch that failed. It leaves weights, buffers, gradients, the loss's memory and the random state
as they were. It must not know what is done about a finding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from yolocore.loss.detection import BatchTargets
from yolocore.train.amp_check import untouched
from yolocore.train.islands import is_island
from yolocore.train.precision import Precision
from yolocore.train.protocols import Loss
from yolocore.train.trees import mapped, tensors_in


@dataclass(frozen=True)
class Finding:
    """The first thing that was not finite: `module` is its dotted name, None where no module is to blame.

    "loss" means that the loss itself or its gradient is the first; `where` says all of it in words.
    """

    kind: Literal["forward", "backward", "loss"]
    module: str | None
    where: str


class _Gradient(NamedTuple):
    """A gradient that was not finite: the loss's, or that of an input, output or parameter of a module."""

    role: Literal["loss", "in", "out", "parameter"]
    name: str


def find_overflow(
    network: nn.Module,
    loss: Loss,
    images: Tensor,
    targets: BatchTargets,
    *,
    precision: Precision,
    scale: float = 1.0,
) -> Finding | None:
    """Run a batch (images as the network takes them) under hooks; None where all was finite.

    `scale` is what the loss is multiplied with before it goes back. An island that cannot bring its gradient
    back into a narrower input is not named again: the module that made this input is.
    """
    probe = _Probe(network)
    with untouched(network, loss, images.device), probe.hooks():
        with precision.autocast():
            maps = network(images)
        total, _ = loss(mapped(maps, probe.own_view(_Gradient("loss", ""))), targets)
        if probe.forward is not None:
            name = probe.forward
            return Finding("forward", name or None, f"the output of {name or 'the network'} overflows")
        if not all(_is_finite(part) for part in tensors_in(maps)):
            return Finding("forward", None, "what the network is given is not finite")
        if not _is_finite(total):
            return Finding("loss", None, "the loss is not finite, though the network's output is")
        gradients = _gradients(total * scale, network)
        if all(_is_finite(gradient) for gradient in gradients):
            return None
    return _blame(probe.backward, {name for name, module in network.named_modules() if is_island(module)})


def finite_in_fp32(network: nn.Module, loss: Loss, images: Tensor, targets: BatchTargets) -> bool:
    """Tell whether loss and gradients of a batch, and their norm, are finite without autocast."""
    with untouched(network, loss, images.device):
        total, _ = loss(network(images), targets)
        if not _is_finite(total):
            return False
        norms = [torch.linalg.vector_norm(gradient) for gradient in _gradients(total, network)]
        return math.isfinite(torch.linalg.vector_norm(torch.stack(norms)))


def broken_images(images: Tensor, rows: Tensor) -> list[int]:
    """Return the places in the batch of images that hold a value that is not finite, or whose labels do.

    `images` (b, 3, h, w); `rows` (n, 6) with the image's place in column 0.
    """
    bad = ~torch.isfinite(images).flatten(1).all(1).cpu()
    for row in rows[~torch.isfinite(rows).all(1)].cpu():
        if torch.isfinite(row[0]):
            bad[int(row[0])] = True
    return [int(place) for place in bad.nonzero()]


def data_is_finite(images: Tensor, rows: Tensor) -> bool:
    """Tell whether all images (b, 3, h, w) and label rows (n, 6) of a batch are finite."""
    return _is_finite(images) and _is_finite(rows)


class _Probe:
    """Hooks on every module: the first whose output is not finite, and all gradients that are not."""

    def __init__(self, network: nn.Module) -> None:
        self.forward: str | None = None
        self.backward: list[_Gradient] = []
        self._network = network
        self._fed_well: dict[str, bool] = {}

    @contextmanager
    def hooks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, module in self._network.named_modules():
                stack.enter_context(_removed(module.register_forward_pre_hook(self._before(name))))
                stack.enter_context(_removed(module.register_forward_hook(self._after(name))))
                for parameter in module.parameters(recurse=False):
                    if parameter.requires_grad:
                        handle = self._look_at(parameter, _Gradient("parameter", name))
                        stack.enter_context(_removed(handle))
            yield

    def _before(self, name: str) -> Callable[[nn.Module, Any], Any]:
        """Look at a module's inputs and give it views of its own, so that its gradients are told apart.

        Before it runs, because an activation may overwrite its input.
        """

        def hook(module: nn.Module, inputs: Any) -> Any:
            self._fed_well[name] = all(_is_finite(part) for part in tensors_in(inputs))
            return mapped(inputs, self.own_view(_Gradient("in", name)))

        return hook

    def own_view(self, gradient: _Gradient) -> Callable[[Tensor], Tensor]:
        """Return what makes a view of a tensor and looks at that view's gradient alone."""

        def view(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            own = tensor.view_as(tensor)
            self._look_at(own, gradient)
            return own

        return view

    def _after(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs = list(tensors_in(output))
            finite = all(_is_finite(part) for part in outputs)
            if self.forward is None and not finite and self._fed_well[name]:
                self.forward = name
            for part in outputs:
                if part.requires_grad:
                    self._look_at(part, _Gradient("out", name))

        return hook

    def _look_at(self, tensor: Tensor, gradient: _Gradient) -> RemovableHandle:
        def hook(value: Tensor) -> None:
            if not _is_finite(value):
                self.backward.append(gradient)

        handle: RemovableHandle = tensor.register_hook(hook)  # type: ignore[no-untyped-call]
        return handle


def _blame(gradients: list[_Gradient], islands: set[str]) -> Finding:
    """Choose the module from the bad gradients, in the order in which they came up.

    Where a module is an island already, its gradient was lost on the way into the narrower input, or is that
    of a value made elsewhere: the next module upstream is to blame, not one around the island.
    """
    if gradients[0].role == "loss":
        return Finding("loss", None, "the gradient of the loss itself overflows")
    around: set[str] = set()
    for role, name in gradients:
        if name in islands:
            parts = name.split(".")
            around.update(".".join(parts[:end]) for end in range(len(parts)))
        elif name not in around:
            what = "the gradient of the weights" if role == "parameter" else "the gradient"
            return Finding("backward", name or None, f"{what} of {name or 'the network'} overflows")
    return Finding("backward", None, "the gradients overflow though their modules run in float32")


def _gradients(total: Tensor, network: nn.Module) -> list[Tensor]:
    """Return the gradients of all weights that take part, without touching those that are kept."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(total.sum(), weights, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


@contextmanager
def _removed(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
