"""Mixed precision as one object the loop holds, so that the loop has no branch for it.

fp32, bf16 and fp16 with a gradient scaler, on CUDA and on the CPU alike. It must not know the loss, and it
decides nothing about losses that are not finite: `watch.py` sees them, `sentinel.py` acts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch

from yolocore.train.optim import clip_gradients

PrecisionName = Literal["fp32", "fp16", "bf16"]

DTYPES: dict[PrecisionName, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def resolve_precision(name: str, device: torch.device) -> PrecisionName:
    """Turn "auto" into fp16 on CUDA and fp32 elsewhere (bf16 is eight times slower on common CPUs)."""
    if name == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    assert name in DTYPES
    return name


class Precision:
    """Autocast, scaled backward pass and step of one run.

    `scaler` only works for fp16; otherwise each of its calls passes through. `fell_back` says that the run
    was configured with another precision than the fp32 it has now.
    """

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.fell_back = False
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """Return the context in which the forward pass runs."""
        return torch.autocast(self.device.type, dtype=DTYPES[self.name], enabled=self.name != "fp32")

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss of shape (1,) or ()."""
        torch.autograd.backward(self._scaler.scale(loss))

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor], clip_norm: float
    ) -> torch.Tensor:
        """Unscale, clip the total L2 norm, step; return the norm before clipping, on the device.

        With fp16 a norm that is not finite means that the step was skipped and the scale halved.
        """
        self._scaler.unscale_(optimizer)
        gradients = [grad for one in parameters if (grad := one.grad) is not None]
        norm = clip_gradients(gradients, clip_norm)
        self._scaler.step(optimizer)
        self._scaler.update()
        return norm

    @property
    def scale(self) -> float | None:
        """Return the scaler's factor, None without one; reads from the device."""
        return self._scaler.get_scale() if self._scaler.is_enabled() else None

    @property
    def scale_on_device(self) -> torch.Tensor | None:
        """Return the scaler's factor (1,) without waiting for the device; None without one, or at first."""
        return self._scaler._scale if self._scaler.is_enabled() else None

    def restart(self, parameters: Iterable[torch.Tensor]) -> None:
        """Begin again with the scaler's first scale; gradients not yet stepped are brought to it."""
        before = self.scale or 1.0
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, (self.scale or 1.0) / before)

    def fall_back(self, parameters: Iterable[torch.Tensor]) -> None:
        """Go on in fp32 and without a scaler; gradients not yet stepped are unscaled."""
        self.name = "fp32"
        self.fell_back = True
        self.restart(parameters)

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's memory as plain numbers; empty without one."""
        return dict(self._scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the scaler's memory back; nothing happens without a scaler or without a memory."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(state)
