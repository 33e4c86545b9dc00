"""What the studio tells over HTTP: the plan row by row, memory, graph, warnings, and a difference."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from yolocore.spec.compare import Change, Comparison
from yolocore.spec.studio import Study

Shape = tuple[int, int, int]


class ArchitectureWarning(BaseModel):
    """Something to know before training; the model can be trained all the same."""

    code: str
    message: str
    line: int | None = None
    column: int | None = None
    row: int | None = None
    value: str | None = None


class LayerView(BaseModel):
    """One row, resolved."""

    model_config = ConfigDict(populate_by_name=True)

    row: int
    source: int | list[int] = Field(alias="from", description="As written: -1 is the row before.")
    module: str
    args: dict[str, Any] = Field(description="By name, defaults included, width scaled.")
    repeats: int
    in_channels: list[int]
    out_channels: int
    out_shapes: list[Shape] = Field(description="Channels, rows, columns; a head has one for each level.")
    stride: float = Field(description="Pixels of the picture for each cell.")
    num_parameters: int
    gflops: float
    receptive_fields_px: list[tuple[int, int] | None] = Field(
        description="Rows and columns of pixels that can change one cell, for each output; null = all."
    )
    training_bytes: int = Field(description="What the batch leaves here for the backward pass, fp32.")
    alive_bytes: int = Field(description="Maps alive while it runs in inference, for the batch, fp32.")
    line: int
    column: int


class MemoryView(BaseModel):
    """What the maps of a batch take in fp32; parameters, gradients and optimizer state not counted."""

    batch: int
    training_bytes: int
    inference_bytes: int
    inference_peak_row: int


class NodeView(BaseModel):
    """A row, or the picture (row -1)."""

    row: int
    module: str
    section: str
    stride: float
    last_use: int | None = Field(description="The last row that takes its output.")


class EdgeView(BaseModel):
    """A map on its way from one row to another; a skip passes over rows."""

    source: int
    target: int
    skip: bool


class GraphView(BaseModel):
    """The rows as a graph, in the order they run."""

    nodes: list[NodeView]
    edges: list[EdgeView]


class PlanView(BaseModel):
    """All that is known of a model YAML before anything is built."""

    head: str
    num_classes: int
    num_parameters: int
    gflops: float = Field(description="For one picture.")
    activation_bytes: int = Field(description="What one picture leaves for the backward pass, fp32.")
    imgsz: tuple[int, int] = Field(description="Rows and columns, rounded up to what the strides divide.")
    strides: list[float]
    anchors: list[list[tuple[float, float]]] = Field(description="Widths and heights in pixels by level.")
    anchors_are_placeholders: bool = Field(description="Only their number is written; auto-anchor fits them.")
    num_state_entries: int
    save: list[int] = Field(description="Rows kept for later rows, one entry for each need.")
    memory: MemoryView
    layers: list[LayerView]
    graph: GraphView
    warnings: list[ArchitectureWarning]

    @classmethod
    def of(cls, study: Study) -> Self:
        """Make the view of a study."""
        return cls.model_validate(study.as_dict())


class DetailView(BaseModel):
    """One thing that differs, as written on either side."""

    name: str
    left: str
    right: str


class RowChangeView(BaseModel):
    """A row of one side, or two that belong together."""

    change: Change
    left: int | None = Field(description="Its row on the left; null where it was added.")
    right: int | None = Field(description="Its row on the right; null where it was removed.")
    left_module: str | None
    right_module: str | None
    details: list[DetailView]
    left_parameters: int
    right_parameters: int


class DifferenceView(BaseModel):
    """What the right architecture has different from the left one; changes are right minus left."""

    left: str
    right: str
    keys: list[DetailView] = Field(description="Keys outside the rows.")
    rows: list[RowChangeView]
    num_added: int
    num_removed: int
    num_changed: int
    parameters_change: int
    gflops_change: float
    activation_bytes_change: int

    @classmethod
    def of(cls, left: str, right: str, found: Comparison) -> Self:
        """Make the view of a comparison between two that are called so."""
        return cls(
            left=left,
            right=right,
            keys=[DetailView(**asdict(key)) for key in found.keys],
            rows=[RowChangeView.model_validate(asdict(row)) for row in found.rows],
            num_added=found.count("added"),
            num_removed=found.count("removed"),
            num_changed=found.count("changed"),
            parameters_change=found.parameters_change,
            gflops_change=round(found.flops_change / 1e9, 4),
            activation_bytes_change=found.activation_bytes_change,
        )
