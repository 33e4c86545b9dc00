"""Schedules as tables: factors, warm-up, its end in mid-epoch, the lag afterwards, accumulation."""

from __future__ import annotations

import pytest

from yolocore.train.schedule import (
    Schedule,
    accumulation,
    cosine_factor,
    linear_factor,
    scaled_weight_decay,
    trained_size,
    warmup_length,
)


def schedule(**changes: object) -> Schedule:
    values: dict[str, object] = {
        "epochs": 10,
        "batches_per_epoch": 8,
        "batch": 16,
        "nominal_batch": 64,
        "kind": "linear",
        "lr0": 0.01,
        "lrf": 0.1,
        "momentum": 0.9,
        "warmup_epochs": 2.5,
        "warmup_min_batches": 0,
        "warmup_momentum": 0.5,
        "warmup_bias_lr": 0.1,
    }
    return Schedule(**{**values, **changes})  # type: ignore[arg-type]


def test_both_shapes_begin_at_one_and_end_at_the_final_factor() -> None:
    for shape in (linear_factor, cosine_factor):
        assert shape(0, 10, 0.01) == pytest.approx(1.0)
        assert shape(10, 10, 0.01) == pytest.approx(0.01)


def test_first_batch_of_warm_up() -> None:
    point = schedule().at(0)
    assert point.lr == (0.1, 0.0, 0.0)
    assert (point.momentum, point.accumulate) == (0.5, 1)


def test_warm_up_moves_towards_the_rate_of_the_current_epoch() -> None:
    plan = schedule()
    assert plan.num_warmup == 20
    point = plan.at(10)
    target = 0.01 * plan.factor(1)
    assert point.lr == pytest.approx((0.1 + 0.5 * (target - 0.1), target / 2, target / 2))
    assert point.momentum == pytest.approx(0.7)
    assert point.accumulate == 2


def test_last_warm_up_values_stay_to_the_end_of_their_epoch() -> None:
    plan = schedule()
    assert plan.at(20) == plan.at(21) == plan.at(23)
    assert plan.at(20).lr[0] == pytest.approx(0.01 * plan.factor(2))


def test_after_warm_up_the_rate_lags_one_epoch() -> None:
    plan = schedule()
    assert plan.at(24).lr == pytest.approx((0.01 * plan.factor(2),) * 3)
    assert plan.at(79).lr == pytest.approx((0.01 * plan.factor(8),) * 3)
    assert (plan.at(24).momentum, plan.at(24).accumulate) == (0.9, 4)


def test_warm_up_can_be_switched_off() -> None:
    plan = schedule(warmup_epochs=0.0)
    assert plan.at(0).lr == (0.01, 0.01, 0.01)
    assert (plan.at(0).momentum, plan.at(0).accumulate) == (0.9, 4)


def test_warm_up_lasts_at_least_the_set_number_of_batches() -> None:
    assert warmup_length(3.0, 10, 100) == 100
    assert schedule(warmup_min_batches=1000).at(79).lr[1] < 0.001


@pytest.mark.parametrize(("batch", "steps"), [(1, 64), (16, 4), (24, 3), (64, 1), (200, 1)])
def test_accumulation_reaches_about_the_nominal_batch(batch: int, steps: int) -> None:
    assert accumulation(batch, 64) == steps
    assert scaled_weight_decay(0.0005, batch, 64) == pytest.approx(0.0005 * batch * steps / 64)


@pytest.mark.parametrize(
    ("asked", "stride", "got"), [(32, 32, 64), (100, 32, 128), (640, 64, 640), (641, 64, 704)]
)
def test_image_size_fits_the_grid(asked: int, stride: int, got: int) -> None:
    assert trained_size(asked, stride) == got
