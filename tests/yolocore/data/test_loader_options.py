"""The loader's options: sizes, rectangles, quads, weights, ranks; going back; one batch out of turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.yolocore.data.conftest import MakeSamples
from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import Batch, apply_quad, draw_quad
from yolocore.data.dataset import TrainSamples
from yolocore.data.draws import generator
from yolocore.data.files import Sample, rows_array
from yolocore.data.images import ImageStore
from yolocore.data.loader import TrainLoader
from yolocore.data.place import MultiScale
from yolocore.data.rect import plan_rectangles
from yolocore.errors import ConfigError

SIDE = 64
SINGLE = AugmentConfig(mosaic=0)


def train_samples(samples: list[Sample], *, augment: AugmentConfig | None = None) -> TrainSamples:
    return TrainSamples(samples, ImageStore(samples, SIDE), SIDE, augment or AugmentConfig(mixup=0.3), seed=1)


def rect_samples(samples: list[Sample], batch_size: int) -> TrainSamples:
    sizes_hw = [(sample.height, sample.width) for sample in samples]
    plan = plan_rectangles(sizes_hw, batch_size=batch_size, imgsz=SIDE, stride=16, pad=0.0)
    return TrainSamples(samples, ImageStore(samples, SIDE), SIDE, AugmentConfig(), seed=1, rect=plan)


def same(one: Batch, other: Batch) -> bool:
    return (
        replace(one, images=None, targets=None) == replace(other, images=None, targets=None)  # type: ignore[arg-type]
        and torch.equal(one.images, other.images)
        and torch.equal(one.targets, other.targets)
    )


def run(samples: TrainSamples, batch_size: int, *, epochs: int = 2, **options: Any) -> list[Batch]:
    with TrainLoader(samples, batch_size, seed=5, **options) as loader:
        if options.get("weigh"):
            loader.set_class_maps(np.zeros(3))
        return [batch for epoch in range(epochs) for batch in loader.epoch(epoch)]


# ---- multi-scale


@pytest.mark.parametrize("num_threads", [0, 3])
def test_sizes_change_nothing_but_the_shape_that_is_asked_for(
    make_samples: MakeSamples, num_threads: int
) -> None:
    samples, seen = train_samples(make_samples(7)), []

    def finish(batch: Batch) -> Batch:
        seen.append(batch.input_hw)
        return batch

    scales = MultiScale(SIDE, 16)
    plain = run(samples, 2)
    scaled = run(samples, 2, scales=scales, num_epochs=2, num_threads=num_threads, finish_batch=finish)
    assert all(batch.resized_hw is None for batch in plain)
    for one, other in zip(plain, scaled, strict=True):
        assert same(one, replace(other, resized_hw=None))
        size = scales.draw(generator(5, other.epoch, other.index, "size"))
        assert other.resized_hw == (None if size == SIDE else (size, size))
    assert sorted(seen) == sorted(batch.input_hw for batch in scaled)
    assert len(set(seen)) > 2


# ---- rectangles


def test_rectangles_follow_their_plan(make_samples: MakeSamples) -> None:
    samples = rect_samples(make_samples(7), 3)
    assert samples.rect is not None
    batches = run(samples, 3, num_threads=2)
    assert len(batches) == 6
    names = [samples.samples[index].name for index in samples.rect.order]
    assert [path for batch in batches[:3] for path in batch.paths] == names
    for batch in batches:
        assert tuple(batch.images.shape[2:]) == samples.rect.shapes_hw[batch.index]
        assert batch.targets[:, 2:].min() >= 0
        assert batch.targets[:, 2:].max() <= 1
    assert not torch.equal(batches[0].images, batches[3].images)  # epochs differ in their draws


def test_rectangles_may_be_resized(make_samples: MakeSamples) -> None:
    scales = MultiScale(SIDE, 16)
    for batch in run(rect_samples(make_samples(7), 3), 3, scales=scales):
        height, width = batch.input_hw
        assert height % 16 == width % 16 == 0
        size = scales.draw(generator(5, batch.epoch, batch.index, "size"))
        hw = (batch.images.shape[2], batch.images.shape[3])
        assert batch.resized_hw == scales.shape(hw, size)


# ---- quads


def test_quads_are_joined_from_what_would_have_come(make_samples: MakeSamples) -> None:
    samples = train_samples(make_samples(19))
    plain, quads = run(samples, 8), run(samples, 8, quad=True, num_threads=2)
    assert (len(plain), len(quads)) == (6, 4)
    whole = [batch for batch in plain if len(batch) == 8]
    for one, other in zip(whole, quads, strict=True):
        coins = draw_quad(generator(5, one.epoch, one.index, "quad"), 2)
        assert same(apply_quad(one, coins), other)
        assert other.images.shape == (2, 3, 2 * SIDE, 2 * SIDE)
        assert other.paths == one.paths[:2]
        assert len(other.positions) == 8


def test_quads_need_a_full_batch(make_samples: MakeSamples) -> None:
    with pytest.raises(ConfigError, match=r"7 image\(s\).*batch of 8"):
        TrainLoader(train_samples(make_samples(7)), 8, seed=0, quad=True)
    with pytest.raises(AssertionError):
        TrainLoader(train_samples(make_samples(7)), 6, seed=0, quad=True)


def test_sizes_of_quads_count_from_the_double_side(make_samples: MakeSamples) -> None:
    scales = MultiScale(SIDE, 16)
    (batch,) = run(train_samples(make_samples(4)), 4, quad=True, scales=scales, epochs=1)
    size = scales.draw(generator(5, 0, 0, "size"))
    assert batch.resized_hw == (size, size)


# ---- weights


def weighted(make_samples: MakeSamples) -> list[Sample]:
    """Return pictures of which only the last two have labels: one of a rare class, one of a common one."""
    samples = make_samples(8)
    rows = [*[[]] * 6, [(0, 0.5, 0.5, 0.8, 0.8)], [(1, 0.5, 0.5, 0.8, 0.8)] * 3]
    return [
        replace(sample, rows=rows_array(given), polygons=(None,) * len(given))
        for sample, given in zip(samples, rows, strict=True)
    ]


@pytest.mark.parametrize("augment", [SINGLE, AugmentConfig(mixup=0.5)])
def test_weighed_epochs_do_not_depend_on_threads(make_samples: MakeSamples, augment: AugmentConfig) -> None:
    samples = train_samples(weighted(make_samples), augment=augment)
    once, again = (run(samples, 3, weigh=True, num_threads=threads) for threads in (0, 3))
    assert len(once) == 6
    assert all(same(one, other) for one, other in zip(once, again, strict=True))
    assert {path for batch in once for path in batch.paths} == {"006.png", "007.png"}


def test_class_scores_decide_what_is_drawn(make_samples: MakeSamples) -> None:
    samples = train_samples(weighted(make_samples), augment=SINGLE)
    with TrainLoader(samples, 4, seed=5, weigh=True, num_threads=2) as loader:
        loader.set_class_maps(np.array([0.0, 1.0, 0.0]))
        assert {path for batch in loader.epoch(0) for path in batch.paths} == {"006.png"}
        loader.set_class_maps(np.array([1.0, 0.0, 0.0]))
        assert {path for batch in loader.epoch(1) for path in batch.paths} == {"007.png"}
        first = next(loader.epoch(0))  # going back under other scores draws by those
        assert first.paths == ["007.png"] * 4
        assert same(first, loader.batch_at(0, 0))


def test_partners_come_from_the_drawn_pictures(make_samples: MakeSamples) -> None:
    samples = train_samples(weighted(make_samples), augment=AugmentConfig(mixup=1))
    with TrainLoader(samples, 8, seed=5, weigh=True) as loader:
        loader.set_class_maps(np.array([1.0, 0.0, 1.0]))
        (batch,) = loader.epoch(0)
    assert set(batch.targets[:, 1].tolist()) == {1.0}
    plain = run(samples, 8, epochs=1)[0]
    assert set(plain.targets[:, 1].tolist()) == {0.0, 1.0}


def test_nothing_is_prepared_before_its_scores_are_known(make_samples: MakeSamples) -> None:
    made: list[tuple[int, int]] = []

    def finish(batch: Batch) -> Batch:
        made.append((batch.epoch, batch.index))
        return batch

    samples = train_samples(make_samples(6))
    with TrainLoader(samples, 2, seed=0, weigh=True, num_threads=2, finish_batch=finish) as loader:
        loader.set_class_maps(np.zeros(3))
        assert len(list(loader.epoch(0))) == 3
    assert sorted(made) == [(0, 0), (0, 1), (0, 2)]


def test_weights_come_first_and_stand_alone(make_samples: MakeSamples) -> None:
    samples = train_samples(make_samples(4))
    with TrainLoader(samples, 2, seed=0, weigh=True) as loader, pytest.raises(AssertionError):
        next(loader.epoch(0))
    with TrainLoader(samples, 2, seed=0) as loader, pytest.raises(AssertionError):
        loader.set_class_maps(np.zeros(3))
    with pytest.raises(AssertionError):
        TrainLoader(samples, 2, seed=0, weigh=True, world_size=2)
    with pytest.raises(AssertionError):
        TrainLoader(rect_samples(samples.samples, 2), 2, seed=0, weigh=True)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        TrainLoader(rect_samples(samples.samples, 3), 2, seed=0)  # type: ignore[arg-type]


# ---- going back, and one batch out of turn


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("options", [{}, {"weigh": True}, {"scales": MultiScale(SIDE, 16)}, {"quad": True}])
def test_going_back_gives_the_same_again(
    make_samples: MakeSamples, num_threads: int, options: dict[str, Any]
) -> None:
    samples = train_samples(make_samples(21))
    straight = run(samples, 4, epochs=3, **options)
    per_epoch = len(straight) // 3
    with TrainLoader(samples, 4, seed=5, num_threads=num_threads, **options) as loader:
        if options.get("weigh"):
            loader.set_class_maps([0.0, 0.0, 0.0])
        batches = loader.epoch(1)
        taken = [next(batches) for _ in range(4)]
        assert all(same(*pair) for pair in zip(straight[per_epoch : per_epoch + 4], taken, strict=True))
        rolled_back = list(loader.epoch(1, start_batch=2))
        assert all(
            same(*pair) for pair in zip(straight[per_epoch + 2 : 2 * per_epoch], rolled_back, strict=True)
        )
        onwards = list(loader.epoch(2))
        assert all(same(*pair) for pair in zip(straight[2 * per_epoch :], onwards, strict=True))


@pytest.mark.parametrize("num_threads", [0, 2])
def test_one_batch_out_of_turn_disturbs_nothing(make_samples: MakeSamples, num_threads: int) -> None:
    samples = train_samples(make_samples(10))
    straight = run(samples, 4)
    with TrainLoader(samples, 4, seed=5, num_threads=num_threads) as loader:
        come = []
        for epoch in range(2):
            for batch in loader.epoch(epoch):
                come.append(batch)
                assert same(loader.batch_at(epoch, batch.index), batch)
                assert same(loader.batch_at(1 - epoch, 2), straight[3 * (1 - epoch) + 2])
        assert all(same(*pair) for pair in zip(straight, come, strict=True))
        with pytest.raises(AssertionError):
            loader.batch_at(0, 3)


# ---- ranks


def union(parts: list[Batch]) -> tuple[list[int], list[str], torch.Tensor, torch.Tensor]:
    """Return the places, paths, pictures and targets of all ranks' parts of one batch, in order."""
    targets, first = [], 0
    for part in parts:
        moved = part.targets.clone()
        moved[:, 0] += first
        targets.append(moved)
        first += len(part)
    return (
        [position for part in parts for position in part.positions],
        [path for part in parts for path in part.paths],
        torch.cat([part.images for part in parts]),
        torch.cat(targets),
    )


Make = Callable[[list[Sample]], TrainSamples]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (train_samples, {}),
        (train_samples, {"scales": MultiScale(SIDE, 16)}),
        (train_samples, {"quad": True}),
        (lambda samples: rect_samples(samples, 8), {}),
    ],
)
def test_the_ranks_have_together_what_one_process_has(
    make_samples: MakeSamples, make: Make, options: dict[str, Any]
) -> None:
    samples = make(make_samples(19))
    alone = run(samples, 8, **options)
    ranks = [run(samples, 8, rank=rank, world_size=2, num_threads=rank, **options) for rank in range(2)]
    assert {len(batches) for batches in ranks} == {len(alone)}
    for number, whole in enumerate(alone):
        parts = [batches[number] for batches in ranks]
        assert len({len(part) for part in parts}) == 1
        assert {part.resized_hw for part in parts} == {whole.resized_hw}
        positions, paths, images, targets = union(parts)
        count = len(whole)
        assert positions[: len(whole.positions)] == whole.positions
        assert torch.equal(images[:count], whole.images)
        assert torch.equal(targets[targets[:, 0] < count], whole.targets)
        if not options.get("quad"):
            assert paths[:count] == whole.paths
            assert len(paths) == count + count % 2
            if count % 2:  # what fills up the last batch is the epoch's first picture, changed anew
                assert paths[-1] == alone[number - whole.index].paths[0]


def test_a_rank_without_pictures_of_its_own_repeats_the_first(make_samples: MakeSamples) -> None:
    samples = train_samples(make_samples(1), augment=SINGLE)
    for rank in range(4):
        (batch,) = run(samples, 4, rank=rank, world_size=4, epochs=1)
        assert (batch.paths, batch.positions) == (["000.png"], [rank])


def test_ranks_share_whole_fours(make_samples: MakeSamples) -> None:
    with pytest.raises(AssertionError):
        TrainLoader(train_samples(make_samples(8)), 4, seed=0, quad=True, world_size=2)
