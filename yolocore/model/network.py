"""The network: rows as modules, and a forward that keeps only what later rows need.

The child `model` holds the rows, so that state-dict keys equal those of published weights. Routing is worked
out once from the plan and never depends on data. Must not know losses, training or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from yolocore.model.head import Detect
from yolocore.spec.plan import Plan


@dataclass(frozen=True)
class Route:
    """Where a row's input comes from, whether its output is kept, and what is dropped after it."""

    sources: tuple[int, ...]
    joins: bool
    keep: bool
    drop: tuple[int, ...]


def routes(plan: Plan) -> tuple[Route, ...]:
    """Return the route of each row; row -1 is the picture."""
    last_use: dict[int, int] = {}
    for layer in plan.layers:
        for source in layer.sources:
            if source != layer.index - 1:
                last_use[source] = layer.index
    return tuple(
        Route(
            sources=layer.sources,
            joins=isinstance(layer.written_from, tuple),
            keep=layer.index in last_use,
            drop=tuple(source for source, user in last_use.items() if user == layer.index),
        )
        for layer in plan.layers
    )


class Network(nn.Module):
    """A detector built from a plan."""

    def __init__(self, plan: Plan, rows: list[nn.Module]) -> None:
        super().__init__()
        self.plan = plan
        self.model = nn.Sequential(*rows)
        self._routes = routes(plan)

    @property
    def head(self) -> Detect:
        """The last row."""
        return cast(Detect, self.model[-1])

    @property
    def strides(self) -> Tensor:
        """Pixels per cell of each level, (levels,)."""
        return self.head.strides

    def forward(self, images: Tensor) -> Any:
        """Map (b, channels, h, w) to what the head returns.

        Detect: a list of raw maps (b, anchors, ny, nx, outputs) in train mode, else (decoded (b, n, outputs),
        raw maps). Segment: (raw maps, prototypes), else (decoded, prototypes, raw maps).
        """
        x: Any = images
        kept: dict[int, Tensor] = {}
        for index, (row, route) in enumerate(zip(self.model, self._routes, strict=True)):
            inputs = [x if source == index - 1 else kept[source] for source in route.sources]
            x = row(inputs) if route.joins else row(inputs[0])
            del inputs
            for source in route.drop:
                del kept[source]
            if route.keep:
                kept[index] = x
        return x
