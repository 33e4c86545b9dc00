"""The validation pass with a network that says what the test tells it to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolocore.eval.validate import labels_of_images, validate
from yolocore.loss.detection import DetectionLoss
from yolocore.ops.assign import LevelMatches, assign_targets

ANCHORS = np.array([[[2.0, 2.0], [4.0, 4.0]]], np.float32)


@dataclass(frozen=True)
class Shape:
    original_hw: tuple[int, int]
    ratio_hw: tuple[float, float]
    pad_wh: tuple[float, float]


@dataclass(frozen=True)
class FakeBatch:
    images: Tensor
    targets: Tensor
    paths: list[str]
    shapes: list[Shape] | None
    matches: list[LevelMatches] | None


class Oracle(nn.Module):
    """Repeats decoded rows it was given, one entry per forward; keeps what it was shown."""

    def __init__(self, answers: list[Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.answers = answers
        self.seen: list[Tensor] = []
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.seen.append(images)
        decoded = self.answers[len(self.seen) - 1]
        return decoded, [torch.full((len(images), 2, 4, 4, 5 + decoded.shape[2] - 5), 0.1 * len(self.seen))]


def batch(targets: list[list[float]], num_images: int = 2, shapes: list[Shape] | None = None) -> FakeBatch:
    rows = np.array(targets, np.float32).reshape(-1, 6)
    return FakeBatch(
        images=torch.full((num_images, 3, 32, 32), 51, dtype=torch.uint8),
        targets=torch.from_numpy(rows),
        paths=[f"{number}.jpg" for number in range(num_images)],
        shapes=shapes,
        matches=assign_targets(rows, ANCHORS, [(4, 4)], 4.0),
    )


def answer_truthfully(fake: FakeBatch, num_classes: int = 2, score: float = 0.9) -> Tensor:
    decoded = torch.zeros(len(fake.images), 8, 5 + num_classes)
    filled = [0] * len(fake.images)
    for image, cls, *xywh in fake.targets.tolist():
        row = decoded[int(image), filled[int(image)]]
        row[:4] = torch.tensor(xywh) * 32
        row[4] = 1.0
        row[5 + int(cls)] = score
        filled[int(image)] += 1
    return decoded


FIRST = [[0, 0, 0.25, 0.25, 0.25, 0.25], [0, 1, 0.7, 0.7, 0.3, 0.2], [1, 1, 0.5, 0.5, 0.5, 0.5]]
SECOND = [[1, 0, 0.5, 0.25, 0.5, 0.25]]


def make_loss(num_classes: int = 2) -> DetectionLoss:
    return DetectionLoss(num_classes=num_classes, strides=(8,), box=0.05, obj=1.0, cls=0.5, autobalance=True)


def test_a_network_that_is_right_scores_one_and_stays_as_it_was() -> None:
    batches = [batch(FIRST), batch(SECOND)]
    network = Oracle([answer_truthfully(one) for one in batches])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = validate(network, batches, loss=None, num_classes=2)
    assert result.metrics.map50 == pytest.approx(0.995)
    assert result.metrics.map50_95 == pytest.approx(0.995)
    assert result.confusion.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]
    assert (result.num_images, result.num_labels, result.losses) == (4, 4, None)
    assert result.curves.at.shape == (1000,)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network.seen[0], torch.full((2, 3, 32, 32), 0.2))


def test_losses_are_means_over_batches_and_do_not_move_the_balance() -> None:
    batches = [batch(FIRST), batch(SECOND)]
    loss = make_loss()
    result = validate(Oracle([answer_truthfully(one) for one in batches]), batches, loss=loss, num_classes=2)
    alone = [
        validate(
            Oracle([answer_truthfully(FakeBatch(**vars(one)))] * 2), [one], loss=loss, num_classes=2
        ).losses
        for one in batches[:1]
    ]
    assert result.losses is not None
    assert alone[0] is not None
    assert all(value > 0 for value in result.losses)
    second = [2 * both - first for both, first in zip(result.losses, alone[0], strict=True)]
    assert second[1] != pytest.approx(alone[0][1])
    assert loss.balance == [4.0]


def test_boxes_are_judged_in_the_original_picture() -> None:
    """A detection that fills the pad is right once it is clipped to the picture."""
    shape = Shape(original_hw=(64, 32), ratio_hw=(0.5, 0.5), pad_wh=(8.0, 0.0))
    one = batch([[0, 0, 0.5, 0.5, 0.5, 1.0]], num_images=1, shapes=[shape])
    decoded = torch.zeros(1, 1, 7)
    decoded[0, 0] = torch.tensor([16.0, 16, 32, 32, 1, 0.9, 0])
    assert validate(Oracle([decoded]), [one], loss=None, num_classes=2).metrics.map50_95 == pytest.approx(
        0.995
    )
    unmapped = FakeBatch(one.images, one.targets, one.paths, None, None)
    assert validate(Oracle([decoded]), [unmapped], loss=None, num_classes=2).metrics.map50_95 < 0.2


def test_single_class_ignores_what_the_class_is() -> None:
    one = batch(FIRST)
    decoded = answer_truthfully(one)
    decoded[..., [5, 6]] = decoded[..., [6, 5]]
    assert validate(Oracle([decoded]), [one], loss=None, num_classes=2).metrics.map50 == 0
    result = validate(Oracle([decoded]), [one], loss=None, num_classes=1, single_class=True)
    assert result.metrics.map50 == pytest.approx(0.995)


@pytest.mark.parametrize("targets", [[], FIRST])
def test_nothing_found_or_nothing_labelled_gives_zeros(targets: list[list[float]]) -> None:
    one = batch(targets)
    result = validate(Oracle([torch.zeros(2, 5, 7)]), [one], loss=make_loss(), num_classes=2)
    assert (result.metrics.map50, result.metrics.fitness) == (0.0, 0.0)
    assert result.losses is not None
    assert result.losses[1] > 0


def test_no_batches_at_all() -> None:
    result = validate(Oracle([]), [], loss=None, num_classes=2)
    assert (result.num_images, result.metrics.map50, result.losses) == (0, 0.0, None)


def test_the_forward_pass_runs_under_the_given_precision() -> None:
    class Watched:
        entered = 0

        @contextmanager
        def autocast(self) -> Iterator[None]:
            self.entered += 1
            yield

    watched, one = Watched(), batch(FIRST)
    validate(Oracle([answer_truthfully(one)]), [one], loss=None, num_classes=2, precision=watched)
    assert watched.entered == 1


def test_samples_hold_what_the_network_saw() -> None:
    batches = [batch(FIRST), batch(SECOND)]
    network = Oracle([answer_truthfully(one) for one in batches])
    result = validate(network, batches, loss=None, num_classes=2, num_samples=3)
    assert [sample.path for sample in result.samples] == ["0.jpg", "1.jpg", "0.jpg"]
    first = result.samples[0]
    assert first.image.shape == (32, 32, 3)
    np.testing.assert_allclose(first.labels[0], [0, 4, 4, 12, 12])
    np.testing.assert_allclose(first.detections[:, :4], first.labels[:, 1:], atol=1e-5)


def test_labels_are_split_by_picture_in_pixels() -> None:
    labels = labels_of_images(batch(SECOND))
    assert [len(rows) for rows in labels] == [0, 1]
    np.testing.assert_allclose(labels[1], [[0, 8, 4, 24, 12]])


def test_detections_are_handed_on_in_the_original_picture() -> None:
    taken: list[tuple[str, tuple[int, int], np.ndarray]] = []
    shape = Shape(original_hw=(64, 32), ratio_hw=(0.5, 0.5), pad_wh=(8.0, 0.0))
    one = batch([[0, 0, 0.5, 0.5, 0.5, 1.0]], num_images=2, shapes=[shape, shape])
    decoded = torch.zeros(2, 1, 7)
    decoded[0, 0] = torch.tensor([16.0, 16, 32, 32, 1, 0.9, 0])
    validate(Oracle([decoded]), [one], loss=None, num_classes=2, take=lambda *given: taken.append(given))
    assert [(name, size_hw, len(found)) for name, size_hw, found in taken] == [
        ("0.jpg", (64, 32), 1),
        ("1.jpg", (64, 32), 0),
    ]
    np.testing.assert_allclose(taken[0][2], [[0, 0, 32, 64, 0.9, 0]], rtol=1e-6)
    unmapped = FakeBatch(one.images, one.targets, one.paths, None, None)
    validate(Oracle([decoded]), [unmapped], loss=None, num_classes=2, take=lambda *given: taken.append(given))
    assert taken[2][1] == (32, 32)
