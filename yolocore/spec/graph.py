"""The network as nodes and edges, for a page to draw: which row feeds which, and what skips rows.

It must not know how it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

from yolocore.spec.layers import Plan


@dataclass(frozen=True)
class Node:
    """A row, or the picture (row -1, section `input`); `last_use` is the last row that takes its output."""

    row: int
    module: str
    section: str
    stride: float
    last_use: int | None


@dataclass(frozen=True)
class Edge:
    """A map on its way; `skip` = it passes over rows, so that it must be kept."""

    source: int
    target: int
    skip: bool


@dataclass(frozen=True)
class Graph:
    """Nodes in the order they run, and edges by target."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph_of(plan: Plan) -> Graph:
    """Return the graph of a plan."""
    edges = tuple(
        Edge(source, layer.index, source != layer.index - 1)
        for layer in plan.layers
        for source in dict.fromkeys(layer.sources)
    )
    last_use = {edge.source: edge.target for edge in edges}
    nodes = [Node(-1, "picture", "input", 1.0, last_use.get(-1))]
    nodes += [
        Node(
            layer.index,
            layer.word,
            layer.place.partition("[")[0],
            layer.stride,
            last_use.get(layer.index),
        )
        for layer in plan.layers
    ]
    return Graph(tuple(nodes), edges)
