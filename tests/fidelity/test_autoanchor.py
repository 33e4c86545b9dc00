"""Golden fits of anchors to labels: ratios, best possible recall, and how fit evolved anchors are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.draws import generator
from yolocore.data.files import Sample, sizes_px
from yolocore.ops.anchors import anchor_fit, anchor_fitness, evolve_anchors, side_ratios, telling_sizes
from yolocore.train.anchors import choose_anchors

TOLERANCE = 1e-6
ROUNDED = 1e-4  # golden anchors are given to four decimals
SEEDS = range(9)
SLACK = 0.01


def golden_sizes(case: Case) -> NDArray[np.float32]:
    labels = case.inputs["labels_img_cls_xywhn"]
    samples = [
        Sample(Path(), "train", width, height, labels[labels[:, 0] == number, 1:], ())
        for number, (width, height) in enumerate(case.inputs["shapes_wh"].tolist())
    ]
    return sizes_px(samples, case.meta["imgsz"])


@pytest.mark.parametrize("case", cases("autoanchor"), ids=str)
def test_autoanchor(case: Case) -> None:
    meta, result, sizes = case.meta, case.result, golden_sizes(case)
    assert_close(sizes, case.outputs["wh_pixels"], TOLERANCE, "sizes")
    anchors = np.array(meta["anchors"], np.float32).reshape(-1, 2)
    ratios = side_ratios(sizes, anchors)
    assert_close(ratios, case.outputs["metric_all"], TOLERANCE, "ratios")
    assert_close(ratios.max(1), case.outputs["metric_best"], TOLERANCE, "best ratios")
    fit = anchor_fit(sizes, anchors, meta["thr"])
    assert_close(fit.recall, result["bpr"], TOLERANCE, "best possible recall")
    assert_close(fit.per_label, result["aat"], TOLERANCE, "matching anchors a label")
    assert fit.is_good == result["anchors_judged_good_without_random_scale"]
    fitness = anchor_fitness(sizes, anchors, meta["thr"])
    assert_close(fitness, result["genetic_fitness"], TOLERANCE, "fitness")


def seeded_fitness(
    case: Case, sizes: NDArray[np.float32], num_anchors: int, seed: int, generations: int
) -> float:
    rng, meta = generator(seed, 0, 0, "autoanchor"), case.meta
    found = evolve_anchors(sizes, num_anchors, meta["imgsz"], meta["thr"], rng, generations)
    return anchor_fitness(sizes, found, meta["thr"])


@pytest.mark.parametrize("case", cases("autoanchor"), ids=str)
def test_evolved_anchors_are_as_fit_as_the_references(case: Case) -> None:
    """The golden figure is one random run, so it is held against the median of ours.

    It has 200 generations: on labels of ordinary size such runs end 0.0085 below our 1000 on average, with a
    standard deviation of 0.0065, so `SLACK` covers three of these; without evolution we end 0.016 below the
    golden figure. Where labels are a few pixels small, the floor of 2 px for what is mutated makes every
    mutant worse: the luck of the clustering stays, and its own spread is the measure.
    """
    meta, result = case.meta, case.result
    sizes = telling_sizes(golden_sizes(case))
    assert len(sizes) == result["n_wh_ge_2px_any"]
    golden = np.array(result["reference_evolved_anchors_seed1_gen200"], np.float32)
    expected = result["reference_evolved_fitness"]
    assert_close(anchor_fitness(sizes, golden, meta["thr"]), expected, ROUNDED, "fitness of golden anchors")
    started, evolved = (
        np.array([seeded_fitness(case, sizes, len(golden), seed, generations) for seed in SEEDS])
        for generations in (0, 1000)
    )
    tolerance = SLACK if (evolved > started).any() else max(SLACK, 3 * evolved.std())
    assert np.median(evolved) >= expected - tolerance, (evolved, expected)


@pytest.mark.parametrize("case", cases("autoanchor"), ids=str)
def test_choice_of_anchors(case: Case) -> None:
    meta, result = case.meta, case.result
    own = np.array(meta["anchors"], np.float32).reshape(len(meta["strides"]), -1, 2)
    choice = choose_anchors(
        golden_sizes(case),
        own,
        num_levels=own.shape[0],
        anchors_per_level=own.shape[1],
        strides=meta["strides"],
        imgsz=meta["imgsz"],
        anchor_t=meta["thr"],
        seed=0,
    )
    assert choice.small_labels == result["n_any_lt_3px"]
    assert choice.before is not None
    assert choice.changed == (choice.after.recall > choice.before.recall)
    if result["anchors_judged_good_without_random_scale"]:
        assert not choice.changed
