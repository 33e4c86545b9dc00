"""Receptive fields against what gradients reach: which pixels change one cell of a network that was built."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from yolocore.model.build import assemble
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import Plan, plan_architecture
from yolocore.spec.receptive import receptive_fields
from yolocore.spec.zoo import zoo_text


def plan_of(*rows: str, side: int = 128) -> Plan:
    body = "".join(f"  - {row}\n" for row in rows)
    text = f"nc: 1\nanchors: 1\nbackbone:\n{body}head:\n  - [[-1], 1, Detect, [nc, anchors]]\n"
    return plan_architecture(parse_architecture(text), imgsz=(side, side))


def reached(plan: Plan) -> tuple[int, int]:
    """Return over how many rows and columns a gradient reaches, the most of eight middle cells."""
    network = assemble(plan).double().eval()
    _make_linear(network)
    picture = torch.ones(1, 3, *plan.imgsz, dtype=torch.float64, requires_grad=True)
    out: Tensor = picture
    for row in list(network.model)[:-1]:
        out = row(out)
    middle = out.shape[-1] // 2
    found = [(0, 0)]
    for y in range(middle - 4, middle + 4):
        (gradient,) = torch.autograd.grad(out[0, :, y, y].sum(), picture, retain_graph=True)
        seen = gradient[0].abs().sum(0) > 0
        found.append((_extent(seen.any(1)), _extent(seen.any(0))))
    return max(row for row, _ in found), max(column for _, column in found)


def _extent(seen: Tensor) -> int:
    """Return how far apart the first and the last True stand, both counted."""
    places = seen.nonzero().flatten()
    return int(places[-1] - places[0]) + 1


def _make_linear(module: nn.Module) -> None:
    """Let nothing cancel out: positive weights, no activation, means instead of maxima."""
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        elif isinstance(child, nn.SiLU):
            setattr(module, name, nn.Identity())
        else:
            _make_linear(child)
    for parameter in module.parameters():
        parameter.data.fill_(0.01)


@pytest.mark.parametrize(
    "rows",
    [
        ("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, Conv, [8, 5, 2]]"),
        ("[-1, 1, Conv, [8, 6, 2, 2]]", "[-1, 3, Conv, [8, 3]]"),
        ("[-1, 1, Conv, [8, 3, 1, None, 1, 2]]",),
        ("[-1, 1, Conv, [8, [3, 5], 1]]",),
        ("[-1, 1, Conv, [8]]", "[-1, 2, C3, [8]]", "[-1, 1, DWConv, [8, 3, 2]]"),
        ("[-1, 1, Conv, [8]]", "[-1, 2, C3x, [8]]", "[-1, 2, BottleneckCSP, [8]]"),
        ("[-1, 1, Conv, [16]]", "[-1, 2, C3Ghost, [16]]", "[-1, 1, GhostConv, [8, 3, 2]]"),
        ("[-1, 1, Conv, [8]]", "[-1, 1, GhostBottleneck, [16, 3, 2]]"),
        ("[-1, 1, Conv, [8]]", "[-1, 1, GhostBottleneck, [8]]"),
        ("[-1, 1, Conv, [8]]", "[-1, 3, Bottleneck, [8]]"),
        ("[-1, 1, Focus, [8, 3]]", "[-1, 1, SPPF, [8, 5]]"),
        ("[-1, 1, Conv, [8]]", "[-1, 1, SPP, [8, [5, 9]]]", "[-1, 1, C3SPP, [8, [3, 7]]]"),
        ("[-1, 1, MixConv2d, [8, [3, 5]]]", "[-1, 1, CrossConv, [8, 5, 2]]"),
        ("[-1, 1, nn.MaxPool2d, [2, 2]]", "[-1, 1, Conv, [8, 3]]"),
        ("[-1, 1, nn.MaxPool2d, [3, 1, 1]]", "[-1, 1, Contract, [2]]", "[-1, 1, Conv, [8, 3]]"),
        ("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, nn.Upsample, [None, 2, nearest]]", "[-1, 1, Conv, [8, 3]]"),
        ("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, nn.Upsample, [None, 2, bilinear]]"),
        ("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, nn.ConvTranspose2d, [8, 2, 2]]"),
        ("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, nn.ConvTranspose2d, [8, 4, 2, 1]]"),
        ("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, DWConvTranspose2d, [8, 4, 2, 1]]"),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Expand, [2]]", "[-1, 1, Conv, [8, 3]]"),
        ("[-1, 1, Conv, [8]]", "[-1, 1, Proto, [8, 8, 8]]"),
    ],
    ids=lambda rows: " ".join(row.split(", ")[2] for row in rows),
)
def test_a_field_is_what_a_gradient_reaches(rows: tuple[str, ...]) -> None:
    plan = plan_of(*rows) if "Proto" not in rows[-1] else plan_of("[-1, 1, Conv, [8, 3, 2]]", *rows)
    (field,) = receptive_fields(plan)[-2]
    assert field.pixels == reached(plan)


def test_attention_sees_the_whole_picture() -> None:
    plan = plan_of("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, C3TR, [8]]", "[-1, 1, Conv, [8, 3]]")
    assert [field.pixels for (field,) in receptive_fields(plan)] == [(3, 3), None, None, None]


def test_the_published_figures_of_a_known_network() -> None:
    plan = plan_architecture(parse_architecture(zoo_text("yolov5s")))
    fields = receptive_fields(plan)
    assert [fields[row][0].pixels for row in (0, 1, 3, 5, 7)] == [
        (6, 6),
        (10, 10),
        (26, 26),
        (74, 74),
        (202, 202),
    ]
    assert [field.pixels for field in fields[-1]] == [(698, 698), (746, 746), (842, 842)]
