"""The detection loss against a slow restatement in doubles, and what it promises the device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from yolocore.loss.detection import BatchTargets, DetectionLoss, scale_gains, to_tensors
from yolocore.ops.assign import LevelMatches, assign_targets

STRIDES = (8, 16, 32)
ANCHORS = np.array(
    [
        [[1.25, 1.6], [2.0, 3.75], [4.1, 2.9]],
        [[1.9, 3.8], [3.9, 2.8], [3.7, 7.4]],
        [[3.6, 2.8], [4.9, 6.2], [11.6, 10.2]],
    ],
    np.float32,
)
SHAPES = ((8, 10), (4, 5), (2, 3))
BALANCE = (4.0, 1.0, 0.4)


def matches(seed: int = 0, n: int = 24, num_classes: int = 3) -> list[LevelMatches]:
    rng = np.random.default_rng(seed)
    targets = np.concatenate(
        (
            rng.integers(0, 2, (n, 1)),
            rng.integers(0, num_classes, (n, 1)),
            rng.random((n, 2)),
            rng.random((n, 2)) * 0.7 + 0.05,
        ),
        1,
    ).astype(np.float32)
    return assign_targets(targets, ANCHORS, SHAPES, 4.0)


def raw_maps(
    num_classes: int = 3, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 3, ny, nx, 5 + num_classes, generator=generator).to(dtype) for ny, nx in SHAPES]
    if channels_last:
        maps = [raw.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4) for raw in maps]
    return [raw.requires_grad_() for raw in maps]


def make_loss(num_classes: int = 3, **kwargs: Any) -> DetectionLoss:
    return DetectionLoss(
        num_classes=num_classes, strides=STRIDES, **{"box": 0.05, "obj": 1.0, "cls": 0.5, **kwargs}
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross_entropy(logit: float, target: float) -> float:
    return -(target * math.log(sigmoid(logit)) + (1 - target) * math.log(1 - sigmoid(logit)))


def ciou(p: list[float], t: list[float]) -> float:
    overlap = [
        max(
            0.0, min(p[k] + p[k + 2] / 2, t[k] + t[k + 2] / 2) - max(p[k] - p[k + 2] / 2, t[k] - t[k + 2] / 2)
        )
        for k in (0, 1)
    ]
    hull = [
        max(p[k] + p[k + 2] / 2, t[k] + t[k + 2] / 2) - min(p[k] - p[k + 2] / 2, t[k] - t[k + 2] / 2)
        for k in (0, 1)
    ]
    inter = overlap[0] * overlap[1]
    iou = inter / (p[2] * p[3] + t[2] * t[3] - inter + 1e-7)
    distance = ((p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2) / (hull[0] ** 2 + hull[1] ** 2 + 1e-7)
    v = 4 / math.pi**2 * (math.atan(t[2] / t[3]) - math.atan(p[2] / p[3])) ** 2
    return iou - distance - v * v / (v - iou + 1 + 1e-7)


def slowly(maps: list[Tensor], levels: list[LevelMatches], num_classes: int) -> list[float]:
    """Return (box, obj, cls) row by row, cell by cell."""
    box = obj = cls = 0.0
    for raw, level, balance in zip(maps, levels, BALANCE, strict=True):
        values = raw.detach().double().numpy()
        truth = np.zeros(raw.shape[:4])
        for row in range(len(level)):
            place = (level.image[row], level.anchor[row], level.gj[row], level.gi[row])
            t = values[place]
            s = [2 * sigmoid(x) for x in t[:4]]
            wh = level.anchor_wh[row].astype(float)
            iou = ciou(
                [s[0] - 0.5, s[1] - 0.5, s[2] ** 2 * wh[0], s[3] ** 2 * wh[1]],
                [float(x) for x in level.box[row]],
            )
            box += (1 - iou) / len(level)
            truth[place] = max(iou, 0.0)
            for c in range(num_classes if num_classes > 1 else 0):
                cls += cross_entropy(t[5 + c], float(level.cls[row] == c)) / (len(level) * num_classes)
        each = [cross_entropy(x, t) for x, t in zip(values[..., 4].ravel(), truth.ravel(), strict=True)]
        obj += balance * sum(each) / len(each)
    return [0.05 * box, 1.0 * obj, 0.5 * cls]


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_items_as_row_by_row(num_classes: int, dtype: torch.dtype) -> None:
    maps, levels = raw_maps(num_classes, dtype), matches(num_classes=num_classes)
    total, items = make_loss(num_classes)(maps, to_tensors(levels))
    expected = slowly(maps, levels, num_classes)
    np.testing.assert_allclose(items.numpy(), expected, rtol=1e-6 if dtype is torch.float64 else 1e-5)
    assert total.shape == (1,)
    assert (total.dtype, items.requires_grad) == (dtype, False)
    assert total.item() == pytest.approx(2 * sum(expected), rel=1e-5)


def test_gradient_equals_differences() -> None:
    maps, targets, loss = raw_maps(2, torch.float64), to_tensors(matches(3, num_classes=2)), make_loss(2)
    for raw, gradient in zip(maps, torch.autograd.grad(loss(maps, targets)[0].sum(), maps), strict=True):
        cells = (gradient.abs().sum(-1) > gradient.abs().sum(-1).median()).nonzero()[:4]
        # Box columns are left out: they also move the objectness target, which carries no gradient.
        for cell in cells:
            for column in (4, 5, 6):
                place = (*cell.tolist(), column)
                with torch.no_grad():
                    raw[place] += 1e-5
                    high = loss(maps, targets)[0].item()
                    raw[place] -= 2e-5
                    low = loss(maps, targets)[0].item()
                    raw[place] += 1e-5
                assert gradient[place].item() == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    "options", [{}, {"fl_gamma": 1.5, "obj_pw": 0.7, "cls_pw": 2.0, "label_smoothing": 0.1}]
)
def test_memory_layout_changes_nothing(options: dict[str, float]) -> None:
    targets = to_tensors(matches())
    outcomes = []
    for channels_last in (False, True):
        maps = raw_maps(channels_last=channels_last)
        total, items = make_loss(**options)(maps, targets)
        outcomes.append((items, torch.autograd.grad(total.sum(), maps)))
    torch.testing.assert_close(outcomes[0][0], outcomes[1][0])
    for one, other in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(one, other)


def crowded(order: list[int]) -> list[LevelMatches]:
    """Several targets of different size and class in one cell."""
    rows = np.array([[0, k % 3, 0.45, 0.45, 0.1 + 0.02 * k, 0.15] for k in order], np.float32)
    return assign_targets(rows, ANCHORS, SHAPES, 4.0)


def test_the_last_row_decides_a_shared_cell() -> None:
    captured = []
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        maps, levels = raw_maps(), crowded(order)
        _, items = make_loss()(maps, to_tensors(levels))
        np.testing.assert_allclose(items.numpy(), slowly(maps, levels, 3), rtol=1e-5)
        captured.append(items)
    assert captured[0][1] != captured[1][1]
    torch.testing.assert_close(captured[0][[0, 2]], captured[1][[0, 2]])


def test_gradients_of_crowded_cells_do_not_depend_on_the_number_of_threads() -> None:
    levels = matches(5, n=2000)
    gradients = []
    threads = torch.get_num_threads()
    try:
        for num in (1, 2, 2):
            torch.set_num_threads(num)
            maps = raw_maps()
            gradients.append(torch.autograd.grad(make_loss()(maps, to_tensors(levels))[0].sum(), maps))
    finally:
        torch.set_num_threads(threads)
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    for others in gradients[2:]:
        assert all(torch.equal(one, other) for one, other in zip(gradients[1], others, strict=True))


def test_no_targets_leave_objectness_only() -> None:
    maps = raw_maps()
    levels = assign_targets(np.zeros((0, 6), np.float32), ANCHORS, SHAPES, 4.0)
    total, items = make_loss()(maps, to_tensors(levels))
    total.sum().backward()
    np.testing.assert_allclose(items.numpy(), slowly(maps, levels, 3), rtol=1e-5)
    assert items[0] == items[2] == 0
    for raw in maps:
        assert raw.grad is not None
        assert raw.grad[..., 4].abs().min() > 0
        assert raw.grad[..., [0, 1, 2, 3, 5, 6, 7]].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_maps_are_scored_in_single(dtype: torch.dtype) -> None:
    targets = to_tensors(matches())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, items = make_loss()(maps := raw_maps(dtype=dtype), targets)
    single = [raw.detach().float().requires_grad_() for raw in maps]
    expected_total, expected = make_loss()(single, targets)
    torch.testing.assert_close(items, expected)
    assert items.dtype == torch.float32
    for one, other in zip(
        torch.autograd.grad(total.sum(), maps), torch.autograd.grad(expected_total.sum(), single), strict=True
    ):
        assert one.dtype == dtype
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=1e-3)


FREE = ("permute", "view", "::select", "slice", "::split", "detach", "expand", "unsqueeze", "alias", "unbind")


class Count(TorchDispatchMode):
    """Notes the name of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("autobalance", [False, True])
def test_a_step_asks_the_device_for_nothing(autobalance: bool) -> None:
    maps, targets, loss = raw_maps(), to_tensors(matches()), make_loss(autobalance=autobalance)
    with Count() as count:
        total, _ = loss(maps, targets)
        total.sum().backward()
    forbidden = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "bincount")
    assert [name for name in count.names if any(word in name for word in forbidden)] == []
    assert len([name for name in count.names if not any(word in name for word in FREE)]) <= 220


def test_balance_moves_only_while_training() -> None:
    maps, targets, loss = raw_maps(), to_tensors(matches()), make_loss(autobalance=True)
    with torch.no_grad():
        loss(maps, targets)
    assert loss.balance == [4.0, 1.0, 0.4]
    loss(maps, targets)
    moved = loss.balance
    assert moved != [4.0, 1.0, 0.4]
    assert moved[1] == 1.0
    other = make_loss(autobalance=True)
    other.balance = moved
    assert torch.equal(other(maps, targets)[1], loss(maps, targets)[1])
    assert make_loss().balance == [4.0, 1.0, 0.4]


def test_gains_follow_levels_classes_and_size() -> None:
    assert scale_gains(0.05, 1.0, 0.5, 3, 80, 640) == pytest.approx((0.05, 1.0, 0.5))
    gains = scale_gains(0.05, 1.0, 0.5, 4, 20, 1280)
    assert gains == pytest.approx((0.05 * 0.75, 4 * 0.75, 0.5 * 0.25 * 0.75))
    assert gains.obj == pytest.approx(3.0)


def test_packing_keeps_every_row() -> None:
    levels = matches()
    targets: BatchTargets = to_tensors(levels)
    assert targets.counts == tuple(len(level) for level in levels)
    assert len(targets) == sum(targets.counts) > 0
    np.testing.assert_array_equal(targets.box.numpy(), np.concatenate([level.box for level in levels]))
    np.testing.assert_array_equal(targets.cls.numpy(), np.concatenate([level.cls for level in levels]))
    assert targets.weight.sum().item() == pytest.approx(sum(count > 0 for count in targets.counts))
