"""The loader: order, independence of threads, resuming, errors and a clean end."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.yolocore.data.conftest import MakeSamples
from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import Batch
from yolocore.data.dataset import Renderer, TrainSamples, ValSamples
from yolocore.data.files import Sample
from yolocore.data.images import ImageStore
from yolocore.data.loader import TrainLoader, ValLoader
from yolocore.errors import DatasetError


def train_samples(samples: list[Sample], renderer: Renderer = "exact") -> TrainSamples:
    config = AugmentConfig(mosaic=0.8, mixup=0.3) if renderer == "fast" else AugmentConfig()
    return TrainSamples(samples, ImageStore(samples, 32), 32, config, seed=1, renderer=renderer)


def same(one: Batch, other: Batch) -> bool:
    fields = (
        (one.paths, one.epoch, one.index, one.positions),
        (
            other.paths,
            other.epoch,
            other.index,
            other.positions,
        ),
    )
    return (
        fields[0] == fields[1]
        and torch.equal(one.images, other.images)
        and torch.equal(one.targets, other.targets)
    )


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("renderer", ["exact", "fast"])
def test_threads_do_not_change_the_batches(make_samples: MakeSamples, renderer: Renderer) -> None:
    samples = train_samples(make_samples(10), renderer)
    runs = []
    for num_threads in (0, 1, 3):
        with TrainLoader(samples, 4, seed=1, num_threads=num_threads) as loader:
            assert len(loader) == 3
            runs.append([batch for epoch in range(3) for batch in loader.epoch(epoch)])
    for run in runs[1:]:
        assert len(run) == 9
        assert all(same(one, other) for one, other in zip(runs[0], run, strict=True))
    assert [len(batch) for batch in runs[0][:3]] == [4, 4, 2]
    assert sorted(path for batch in runs[0][:3] for path in batch.paths) == sorted(
        sample.name for sample in samples.samples
    )
    assert [batch.paths for batch in runs[0][:3]] != [batch.paths for batch in runs[0][3:6]]
    assert loader_threads() == []


def test_batches_are_the_same_in_fresh_memory_and_in_used(make_samples: MakeSamples) -> None:
    samples = train_samples(make_samples(10), "fast")
    with TrainLoader(samples, 4, seed=1, num_threads=3) as loader:
        kept = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
        for _ in range(2):
            places = set()
            for epoch in range(3):
                for number, batch in enumerate(loader.epoch(epoch)):
                    assert same(batch, kept[3 * epoch + number])
                    assert batch.images.is_contiguous(memory_format=torch.channels_last)
                    places.add(batch.images.data_ptr())
    assert len(places) < 9
    for batch in kept:
        for number, position in enumerate(batch.positions):
            index = next(i for i, s in enumerate(samples.samples) if s.name == batch.paths[number])
            item = samples.item(batch.epoch, position, index)
            np.testing.assert_array_equal(batch.images[number].permute(1, 2, 0), item.image[..., ::-1])


def test_a_resumed_loader_gives_what_would_have_come(make_samples: MakeSamples) -> None:
    samples = train_samples(make_samples(10))
    with TrainLoader(samples, 4, seed=1, num_threads=2) as loader:
        straight = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
    with TrainLoader(samples, 4, seed=1, start_epoch=1, start_batch=2, num_threads=2) as loader:
        resumed = [batch for epoch in (1, 2) for batch in loader.epoch(epoch)]
        assert all(same(one, other) for one, other in zip(straight[5:], resumed, strict=True))
        again = list(loader.epoch(1))
        assert all(same(one, other) for one, other in zip(straight[3:6], again, strict=True))


def test_an_epoch_may_be_left_in_the_middle(make_samples: MakeSamples) -> None:
    samples = train_samples(make_samples(10))
    with TrainLoader(samples, 3, seed=1, num_threads=2) as loader:
        first = next(loader.epoch(0))
        rest = list(loader.epoch(0, start_batch=1))
        assert [first.index, *(batch.index for batch in rest)] == [0, 1, 2, 3]
        assert next(loader.epoch(5)).epoch == 5
        assert same(next(loader.epoch(0)), first)


def test_finish_runs_on_every_batch(make_samples: MakeSamples) -> None:
    def finish(batch: Batch) -> Batch:
        return replace(batch, matches=[])

    samples = make_samples(4)
    with TrainLoader(train_samples(samples), 2, seed=0, finish_batch=finish) as loader:
        assert all(batch.matches == [] for batch in loader.epoch(0))
    val = ValLoader(ValSamples(samples, ImageStore(samples, 32), 32, 2), finish_batch=finish)
    assert all(batch.matches == [] for batch in val)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_bad_picture_comes_out_in_its_place_and_is_named(
    make_samples: MakeSamples, num_threads: int
) -> None:
    samples = make_samples(8)
    train = TrainSamples(samples, ImageStore(samples, 32), 32, AugmentConfig(mosaic=0), seed=1)
    samples[5].path.write_bytes(b"no picture")
    with TrainLoader(train, 1, seed=1, num_threads=num_threads, shuffle=False) as loader:
        batches = loader.epoch(0)
        assert [next(batches).paths for _ in range(5)] == [[f"00{n}.png"] for n in range(5)]
        with pytest.raises(DatasetError, match=r"005\.png") as caught:
            next(batches)
        assert any("005.png" in note for note in caught.value.__notes__)
        assert [batch.index for batch in loader.epoch(0, start_batch=6)] == [6, 7]
    assert loader_threads() == []


def test_prefetching_is_bounded(make_samples: MakeSamples) -> None:
    made: list[int] = []

    def finish(batch: Batch) -> Batch:
        made.append(batch.index)
        return batch

    samples = train_samples(make_samples(12))
    with TrainLoader(samples, 1, seed=0, num_threads=2, prefetch=3, finish_batch=finish) as loader:
        batches = loader.epoch(0)
        for taken in range(1, 6):
            next(batches)
            assert len(made) <= taken + 3


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_nothing_is_prepared_past_the_last_epoch(make_samples: MakeSamples, num_threads: int) -> None:
    made: list[int] = []

    def finish(batch: Batch) -> Batch:
        made.append(batch.epoch)
        return batch

    samples = train_samples(make_samples(6))
    with TrainLoader(
        samples, 2, seed=0, num_epochs=2, num_threads=num_threads, finish_batch=finish
    ) as loader:
        assert [batch.epoch for epoch in range(2) for batch in loader.epoch(epoch)] == [0, 0, 0, 1, 1, 1]
    assert sorted(made) == [0, 0, 0, 1, 1, 1]


def test_an_epoch_past_the_last_may_be_asked_for(make_samples: MakeSamples) -> None:
    samples = train_samples(make_samples(6))
    with TrainLoader(samples, 2, seed=0, num_epochs=2) as loader:
        assert [batch.epoch for batch in loader.epoch(5)] == [5, 5, 5]


def test_validation_is_the_same_every_time(make_samples: MakeSamples) -> None:
    samples = make_samples(7)
    val = ValSamples(samples, ImageStore(samples, 64, area=True), 64, 3)
    loader = ValLoader(val, num_threads=2)
    once, twice = list(loader), list(loader)
    assert len(loader) == len(once) == 3
    assert all(same(one, other) for one, other in zip(once, twice, strict=True))
    assert all(same(one, other) for one, other in zip(once, ValLoader(val, num_threads=0), strict=True))
    for batch, shape in zip(once, val.plan.shapes_hw, strict=True):
        assert tuple(batch.images.shape[2:]) == shape
        assert batch.shapes is not None
        assert len(batch.shapes) == len(batch)
    next(iter(loader))
    assert loader_threads() == []


def test_a_batch_is_never_larger_than_the_dataset(make_samples: MakeSamples) -> None:
    with TrainLoader(train_samples(make_samples(3)), 16, seed=0) as loader:
        (batch,) = loader.epoch(0)
        assert len(batch) == 3
        assert np.isin(batch.targets[:, 0].numpy(), [0, 1, 2]).all()
