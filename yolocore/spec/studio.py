"""The studio: a model YAML's text in, everything a person needs to know before training it out.

Puts together what the other modules of this package know: plan, memory, receptive fields, graph, warnings
against a dataset. It must not know where the text or the dataset come from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from yolocore.errors import Problem
from yolocore.spec.advice import DatasetFacts, advise
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.compare import Comparison, compare
from yolocore.spec.graph import Graph, graph_of
from yolocore.spec.layers import Plan
from yolocore.spec.memory import Memory, memory_of
from yolocore.spec.plan import plan_architecture
from yolocore.spec.receptive import Field, receptive_fields

MAX_BATCH = 4096


@dataclass(frozen=True)
class Study:
    """A plan and what follows from it, for one batch size and perhaps one dataset."""

    plan: Plan
    memory: Memory
    fields: tuple[tuple[Field, ...], ...]
    graph: Graph
    warnings: tuple[Problem, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values: the plan's summary with more for each row, memory and graph."""
        body = self.plan.summary()
        rows = zip(body["layers"], self.fields, strict=True)
        for number, (layer, fields) in enumerate(rows):
            layer["receptive_fields_px"] = [_pixels(field) for field in fields]
            layer["training_bytes"] = self.memory.row_training_bytes[number]
            layer["alive_bytes"] = self.memory.alive_bytes[number]
        body["memory"] = {
            "batch": self.memory.batch,
            "training_bytes": self.memory.training_bytes,
            "inference_bytes": self.memory.inference_bytes,
            "inference_peak_row": self.memory.peak_row,
        }
        body["graph"] = asdict(self.graph)
        body["warnings"] = [problem.as_dict() for problem in self.warnings]
        return body


def study(
    text: str | bytes,
    *,
    source: str = "model.yaml",
    num_classes: int | None = None,
    imgsz: int = 640,
    batch: int = 1,
    dataset: DatasetFacts | None = None,
) -> Study:
    """Return all that can be told of a model YAML for square pictures of `imgsz` pixels.

    The number of classes is the one given, else the dataset's, else the file's. Raises ArchitectureError with
    the line and column of each problem.
    """
    assert 1 <= batch <= MAX_BATCH, batch
    if num_classes is None and dataset is not None:
        num_classes = dataset.num_classes
    arch = parse_architecture(text, source=source)
    plan = plan_architecture(arch, num_classes=num_classes, imgsz=(imgsz, imgsz))
    return Study(
        plan=plan,
        memory=memory_of(plan, batch),
        fields=receptive_fields(plan),
        graph=graph_of(plan),
        warnings=plan.warnings + (advise(plan, dataset) if dataset else ()),
    )


def difference(left: str, right: str, *, names: tuple[str, str], imgsz: int = 640) -> Comparison:
    """Return what the right of two texts has different; raises ArchitectureError naming the one at fault."""
    plans = [
        plan_architecture(parse_architecture(text, source=name), imgsz=(imgsz, imgsz))
        for text, name in zip((left, right), names, strict=True)
    ]
    return compare(*plans)


def _pixels(field: Field) -> list[int] | None:
    return None if field.pixels is None else list(field.pixels)
