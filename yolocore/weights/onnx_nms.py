"""Puts suppression behind a detector's decoded rows in an ONNX graph.

Built from standard operators, so that every runtime that has them gives the same boxes. Must not know
networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS, DETECTIONS = "output0", "detections"
CLASS_DISTANCE_PX = 7680.0
FAR = 2**62  # an end for slices that no axis reaches


@dataclass(frozen=True)
class Suppression:
    """Thresholds of built-in suppression; the first three are inputs of the file with these defaults."""

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 300
    agnostic: bool = False


def append_suppression(model: Any, options: Suppression) -> None:
    """Put the output `detections` (k, 7) before `output0` (b, n, 5 + classes) of an ONNX model, in place.

    Rows are picture, x1, y1, x2, y2 in pixels of the input, score, class; picture by picture, best score
    first. A row speaks for its best class; classes do not suppress each other unless `agnostic`.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    constants: list[Any] = []
    nodes: list[Any] = []

    def const(name: str, value: Any, kind: Any = np.int64) -> str:
        constants.append(numpy_helper.from_array(np.array(value, kind), f"nms/{name}"))
        return f"nms/{name}"

    def add(op: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, list(outputs), name=f"nms/{op}/{outputs[0]}", **attributes))
        return outputs[0]

    def columns(name: str, start: int, end: int) -> str:
        ends = [const(f"{name}_from", [start]), const(f"{name}_to", [end]), const(f"{name}_axis", [2])]
        return add("Slice", [ROWS, *ends], f"nms/{name}")

    centre, size = columns("centre", 0, 2), columns("size", 2, 4)
    half = add("Mul", [size, const("half", 0.5, np.float32)], "nms/half_size")
    first, second = add("Sub", [centre, half], "nms/first"), add("Add", [centre, half], "nms/second")
    boxes = add("Concat", [first, second], "nms/boxes", axis=2)
    scores = add("Mul", [columns("classes", 5, FAR), columns("objectness", 4, 5)], "nms/scores")
    score, best = "nms/score", "nms/best"
    add("TopK", [scores, const("one", [1])], score, best, axis=2)
    cls = add("Cast", [best], "nms/class", to=TensorProto.FLOAT)
    apart = boxes
    if not options.agnostic:
        shift = add("Mul", [cls, const("distance", CLASS_DISTANCE_PX, np.float32)], "nms/shift")
        apart = add("Add", [boxes, shift], "nms/apart")
    flat = add("Transpose", [score], "nms/flat", perm=[0, 2, 1])
    wishes = [("max_det", np.int64), ("iou_thres", np.float32), ("conf_thres", np.float32)]
    for name, kind in wishes:
        constants.append(numpy_helper.from_array(np.array([getattr(options, name)], kind), name))
    chosen = add("NonMaxSuppression", [apart, flat, *(name for name, _ in wishes)], "nms/chosen")
    place = add("Gather", [chosen, const("pick", [0, 2])], "nms/place", axis=1)
    rows = add("Concat", [boxes, score, cls], "nms/rows", axis=2)
    found = add("GatherND", [rows, place], "nms/found")
    picture = add("Gather", [chosen, const("first_column", [0])], "nms/picture", axis=1)
    number = add("Cast", [picture], "nms/number", to=TensorProto.FLOAT)
    add("Concat", [number, found], DETECTIONS, axis=1)

    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    # A constant that is an input as well is a default: whoever runs the file may give another value.
    for name, kind in wishes:
        element = TensorProto.INT64 if kind is np.int64 else TensorProto.FLOAT
        graph.input.append(helper.make_tensor_value_info(name, element, [1]))
    graph.output.insert(0, helper.make_tensor_value_info(DETECTIONS, TensorProto.FLOAT, ["detections", 7]))
