"""When a run keeps its model's anchors, when it takes fitted ones, and which level gets which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from yolocore.errors import ConfigError
from yolocore.spec.events import Log, Warned
from yolocore.train.anchors import AnchorChoice, anchor_events, choose_anchors

OWN = np.array(
    [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]],
    np.float32,
)


def some_sizes(count: int, typical_px: float, spread: float = 0.5) -> NDArray[np.float32]:
    rng = np.random.default_rng(count)
    return np.exp(rng.normal(np.log(typical_px), spread, (count, 2))).astype(np.float32)


def choose(sizes: Any, current: Any = OWN, **changes: Any) -> AnchorChoice:
    keywords: dict[str, Any] = {
        "num_levels": 3,
        "anchors_per_level": 3,
        "strides": (8, 16, 32),
        "imgsz": 640,
        "anchor_t": 4.0,
        "seed": 0,
    }
    return choose_anchors(np.array(sizes, np.float32), current, **{**keywords, **changes})


def areas(choice: AnchorChoice) -> list[float]:
    found: list[float] = choice.anchors_px.prod(2).mean(1).tolist()
    return found


def test_anchors_that_fit_are_kept() -> None:
    choice = choose(some_sizes(200, 60))
    assert choice.before is not None and choice.before.is_good
    assert choice.after == choice.before
    assert not choice.changed
    assert np.array_equal(choice.anchors_px, OWN)


def test_anchors_that_do_not_fit_are_replaced_by_better_ones() -> None:
    choice = choose(some_sizes(200, 3))
    assert choice.before is not None and choice.before.recall < 0.9
    assert choice.changed and choice.after.recall > 0.98
    assert choice.anchors_px.shape == OWN.shape


def test_new_anchors_that_are_no_better_are_not_taken() -> None:
    """Labels nothing can match: zero recall before, zero after."""
    choice = choose([[0, 50]] * 20)
    assert choice.before is not None and choice.before.recall == choice.after.recall == 0
    assert not choice.changed
    assert np.array_equal(choice.anchors_px, OWN)


def test_switched_off_keeps_what_does_not_fit_and_says_so() -> None:
    choice = choose(some_sizes(200, 3), enabled=False)
    assert not choice.changed and not choice.after.is_good
    assert np.array_equal(choice.anchors_px, OWN)


def test_placeholders_are_always_replaced() -> None:
    choice = choose(some_sizes(200, 60), None)
    assert choice.before is None and choice.changed
    assert choice.after.is_good


def test_placeholders_without_autoanchor_are_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="placeholder anchors without auto-anchor") as caught:
        choose(some_sizes(200, 60), None, enabled=False)
    assert (caught.value.code, caught.value.place, caught.value.value) == (
        "PLACEHOLDER_ANCHORS",
        "/autoanchor",
        "3 anchors a level",
    )


@pytest.mark.parametrize("strides", [(8, 16, 32), (32, 16, 8), (16, 8, 32), (32, 8, 16)])
def test_new_anchors_grow_with_the_stride(strides: tuple[int, ...]) -> None:
    found = areas(choose(some_sizes(200, 60), None, strides=strides))
    assert np.argsort(found).tolist() == np.argsort(strides).tolist()


def test_own_anchors_against_the_strides_are_turned_round() -> None:
    choice = choose(some_sizes(200, 60), OWN, strides=(32, 16, 8))
    assert choice.changed and choice.after == choice.before
    assert np.array_equal(choice.anchors_px, OWN[::-1])


def test_order_is_judged_in_pixels_not_in_cells() -> None:
    """The second level is larger in pixels, yet smaller in cells of 64 pixels."""
    own = [[[40, 40]], [[60, 60]]]
    choice = choose(some_sizes(50, 50, 0.1), own, num_levels=2, anchors_per_level=1, strides=(8, 64))
    assert not choice.changed
    assert choice.anchors_px.tolist() == own


def test_one_level() -> None:
    choice = choose(some_sizes(200, 60), None, num_levels=1, anchors_per_level=1, strides=(16,))
    assert choice.anchors_px.shape == (1, 1, 2)
    own = choose(some_sizes(200, 60), [[[60, 60]]], num_levels=1, anchors_per_level=1, strides=(16,))
    assert not own.changed


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([[50, 60]], id="one label"),
        pytest.param([[50, 60]] * 30, id="all equal"),
        pytest.param([[50, 60], [70, 80]] * 20, id="fewer kinds than anchors"),
        pytest.param([[50, 60], [70, 80], [100, 30]], id="fewer labels than anchors"),
        pytest.param([[1, 1]] * 30, id="all too small"),
        pytest.param([[0, 0], [np.nan, 5], [np.inf, np.inf]], id="none usable"),
        pytest.param([[1e6, 1e6 + i] for i in range(30)], id="beyond half precision"),
    ],
)
@pytest.mark.parametrize("current", [None, OWN], ids=["placeholders", "own"])
def test_degenerate_labels_give_usable_anchors(sizes: list[list[float]], current: Any) -> None:
    choice = choose(sizes, current)
    assert np.isfinite(choice.anchors_px).all() and (choice.anchors_px > 0).all()
    assert choice.after.recall >= (choice.before.recall if choice.before else 0)
    assert areas(choice) == sorted(areas(choice))


def test_sizes_that_are_no_numbers_count_as_unmatched() -> None:
    sizes = np.concatenate([some_sizes(90, 60), np.array([[np.nan, 50], [0, 50]] * 5, np.float32)])
    choice = choose(sizes)
    assert choice.before is not None
    assert choice.before.recall == pytest.approx(0.9)
    assert choice.after.recall <= 0.9


def test_small_labels_are_counted() -> None:
    assert choose([[2.9, 50], [50, 2], [0, 0], [3, 3], [50, 60]]).small_labels == 3


def test_one_seed_gives_the_same_anchors_to_the_bit() -> None:
    sizes = some_sizes(100, 3)
    first, again, other = (choose(sizes, seed=seed) for seed in (1, 1, 2))
    assert first.anchors_px.tobytes() == again.anchors_px.tobytes()
    assert (first.before, first.after) == (again.before, again.after)
    assert first.anchors_px.tobytes() != other.anchors_px.tobytes()


def test_new_anchors_survive_half_precision() -> None:
    found = choose(some_sizes(200, 3)).anchors_px
    assert found.dtype == np.float32
    assert np.array_equal(found, found.astype(np.float16).astype(np.float32))


def test_jitter_changes_the_judgement_not_the_new_anchors() -> None:
    sizes = some_sizes(200, 60)
    plain, jittered = choose(sizes), choose(sizes, jitter=np.full(200, 0.05, np.float32))
    assert plain.before is not None and plain.before.is_good
    assert jittered.before is not None and not jittered.before.is_good
    assert np.array_equal(choose(sizes, None).anchors_px, choose(sizes, None, jitter=np.ones(200)).anchors_px)


def test_given_arrays_are_left_alone() -> None:
    sizes, own = some_sizes(100, 3), OWN.copy()
    sizes[0] = np.nan
    before = sizes.copy()
    choice = choose_anchors(
        sizes,
        own,
        num_levels=3,
        anchors_per_level=3,
        strides=(32, 16, 8),
        imgsz=640,
        anchor_t=4.0,
        seed=0,
        enabled=False,
    )
    choice.anchors_px[:] = 1
    assert np.array_equal(sizes, before, equal_nan=True)
    assert np.array_equal(own, OWN)


def told(choice: AnchorChoice) -> list[str]:
    """Return a log line's text, a warning's code and text."""
    lines = []
    for event in anchor_events(choice, 640):
        assert isinstance(event, Log | Warned)
        lines.append(f"{event.code}: {event.message}" if isinstance(event, Warned) else event.message)
    return lines


def test_nothing_is_told_of_anchors_that_fit() -> None:
    assert told(choose(some_sizes(200, 60))) == []


def test_new_anchors_are_told_with_both_fits() -> None:
    (line,) = told(choose(some_sizes(200, 60), OWN / 20))
    assert "fitted to the labels" in line and "instead of" in line and line.count("x") == 9
    (line,) = told(choose(some_sizes(200, 60), None))
    assert "fitted to the labels" in line and "instead of" not in line


def test_levels_turned_round_are_told() -> None:
    (line,) = told(choose(some_sizes(200, 60), strides=(32, 16, 8)))
    assert "turned round" in line


def test_a_bad_fit_is_a_warning_that_names_small_labels() -> None:
    (line,) = told(choose([[50, 900]] * 20, enabled=False))
    assert line.startswith("ANCHORS_FIT_BADLY: the anchors can match 0.0% of the labels at 640 pixels")
    assert "under 3" not in line
    (line,) = told(choose([[1, 50]] * 20, enabled=False))
    assert "20 labels have a side under 3 pixels" in line


def test_anchors_fitted_to_small_labels_are_a_warning() -> None:
    lines = told(choose(some_sizes(200, 3)))
    assert "fitted to the labels" in lines[0] and lines[1].startswith("LABELS_SMALL: ")
