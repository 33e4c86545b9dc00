"""Short trainings that differ in one trick: what each does to the mAP of a small set, with fixed seeds.

The set are scenes of scanned digits, smaller than the example's, and the network is small, so that a run
takes half a minute and finds most digits; a figure says something of this set and this length alone. Every
score is appended to a file, so that a series can be ended and gone on with. It must not know how figures are
shown.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.ours import CPU, read_data
from benchmarks.sample import write_folder
from benchmarks.tricks_made import made
from examples.digits import SceneRecipe
from yolocore.run import train
from yolocore.spec.config import parse_config
from yolocore.spec.events import EpochDone, TrainEvent
from yolocore.train.checkpoint import checkpoints_in, load_checkpoint, load_into
from yolocore.train.numerics import numerics
from yolocore.train.request import NoControl, RunRequest, RunSettings

MODEL = Path(__file__).with_name("tricks_model.yaml")
SCENES = SceneRecipe(num_train=192, num_val=48, side=96, min_digits=3, max_digits=5, max_scale=4.0)
FEW = SceneRecipe(num_train=8, num_val=4, side=64, min_digits=2, max_digits=3, max_scale=4.0)
_HYP = {"lr0": 0.03, "cls": 2.0, "fliplr": 0.0, "mosaic": 0.5}
_BASE: Mapping[str, Any] = {"imgsz": 96, "batch": 8, "nominal_batch": 8, "warmup_min_batches": 0}
Score = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """What all runs of a series share; the base may have more seeds, to show how far those are apart."""

    epochs: int
    seeds: int
    base_seeds: int
    hyp: Mapping[str, float]
    recipe: SceneRecipe = SCENES


# With shift and scale on, the same run is far from its end even after more epochs than these.
SETTLED = Series(20, 2, 3, {"translate": 0.0, "scale": 0.0})
EARLY = Series(12, 3, 3, {"translate": 0.1, "scale": 0.5})
QUICK = Series(1, 1, 1, {}, FEW)


@dataclass(frozen=True)
class Variant:
    """A change of the base run; `hyp` and `config` are laid over its values, `rewrite` changes the model.

    A variant that is `judged_alone` is no run of its own: the base's last weights in place of their average.
    """

    trick: str
    changed: str
    hyp: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    rewrite: Callable[[str], str] | None = None
    judged_alone: bool = False

    @property
    def name(self) -> str:
        """What its scores are kept under."""
        return f"{self.trick}: {self.changed}"


def grouped(text: str) -> str:
    """Let every down-sampling convolution have as many groups as its widths have divisors in common."""
    return re.sub(r"1, Conv, \[(\d+), 3, 2\]", r"1, DWConv, [\1, 3, 2]", text)


def unrouted(text: str) -> str:
    """Let no row look further back than the one before it, but for the rows of the head."""
    return re.sub(r"- \[\[-1, \d+\], 1, Concat, \[1\]\]", "- [-1, 1, nn.Identity, []]", text)


def ill_anchored(text: str) -> str:
    """Make every anchor six times as large, so that none can match a digit."""
    return re.sub(
        r"- \[(\d+(?:, ?\d+)+)\](?=  #)",
        lambda found: "- [" + ",".join(str(6 * int(side)) for side in found[1].split(",")) + "]",
        text,
    )


BASE = Variant("base", "no change")
VARIANTS: Sequence[Variant] = (
    Variant("EMA", "the last weights judged, not their average", judged_alone=True),
    Variant("mosaic", "never, letterbox alone", hyp={"mosaic": 0.0}),
    Variant("mosaic", "always", hyp={"mosaic": 1.0}),
    Variant("mixup", "with every second mosaic", hyp={"mixup": 0.5}),
    Variant("warm-up", "none", hyp={"warmup_epochs": 0.0}),
    Variant("schedule", "cosine, not linear", config={"schedule": "cosine"}),
    Variant("accumulation", "four batches a step, not one", config={"nominal_batch": 32}),
    Variant("grouped convolutions", "down-sampling rows grouped", rewrite=grouped),
    Variant("routing", "no Concat reaches further back", rewrite=unrouted),
    Variant("label smoothing", "0.1", config={"label_smoothing": 0.1}),
    Variant("image weights", "on", config={"image_weights": True}),
    Variant("multi-scale", "on", config={"multi_scale": True}),
    Variant("quad", "on", config={"quad": True}),
    Variant("freeze", "rows 0 to 4, at their random start", config={"freeze": 5}),
    Variant("anchors", "six times too large, kept", config={"autoanchor": False}, rewrite=ill_anchored),
    Variant("anchors", "six times too large, fitted anew", rewrite=ill_anchored),
    Variant("affine", "YOLOv5's shift 0.1 and scale 0.5", hyp={"translate": 0.1, "scale": 0.5}),
    Variant("colour", "no change of colour", hyp={"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}),
    Variant("mixed precision", "bf16", config={"precision": "bf16"}),
)


class Scores:
    """mAP50 and mAP50-95 after the last epoch, by variant and seed, in a file of one line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, dict[int, Score]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._found.setdefault(row["name"], {})[row["seed"]] = (row["map50"], row["map50_95"])

    def of(self, variant: Variant) -> Mapping[int, Score]:
        """Return the scores of a variant by seed."""
        return self._found.get(variant.name, {})

    def add(self, variant: Variant, seed: int, score: Score) -> None:
        """Keep a score, on disk first."""
        row = {"name": variant.name, "seed": seed, "map50": score[0], "map50_95": score[1]}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._found.setdefault(variant.name, {})[seed] = score


def train_variants(
    scores: Scores,
    variants: Sequence[Variant] = VARIANTS,
    *,
    series: Series = SETTLED,
    until: float = float("inf"),
) -> None:
    """Train what has no score yet, the base first, until all is done or `time.monotonic()` is `until`."""
    alone = [variant for variant in variants if variant.judged_alone]
    with tempfile.TemporaryDirectory() as name:
        data_yaml = write_folder(Path(name) / "scenes", series.recipe)
        for number, (variant, seed) in enumerate(_wanted(scores, variants, series)):
            if time.monotonic() >= until:
                return
            out = Path(name) / f"run-{number}"
            scores.add(variant, seed, train_one(variant, data_yaml, out, series=series, seed=seed))
            for other in alone if variant is BASE and seed < series.seeds else ():
                scores.add(other, seed, judge_last(data_yaml, out, series=series, seed=seed))


def _wanted(scores: Scores, variants: Sequence[Variant], series: Series) -> Iterator[tuple[Variant, int]]:
    base_seeds = [(BASE, seed) for seed in range(series.base_seeds)]
    others = [(one, seed) for seed in range(series.seeds) for one in variants if not one.judged_alone]
    for variant, seed in [*base_seeds, *others]:
        if seed not in scores.of(variant):
            yield variant, seed


def train_one(variant: Variant, data_yaml: Path, out: Path, *, series: Series, seed: int) -> Score:
    """Train one variant as a run of the core; return mAP50 and mAP50-95 of its last epoch."""
    rows: list[EpochDone] = []

    def take(event: TrainEvent) -> None:
        if isinstance(event, EpochDone):
            rows.append(event)

    request = RunRequest(
        out,
        parse_config(values_of(variant, series=series, seed=seed)),
        MODEL.name,
        text_of(variant),
        data_yaml=data_yaml,
        settings=RunSettings(threads=1, loader_threads=0, cache="ram", pictures=False, keep_checkpoints=1),
    )
    train(request, emit=take, control=NoControl())
    return rows[-1].map50, rows[-1].map50_95


def values_of(variant: Variant, *, series: Series, seed: int) -> dict[str, Any]:
    """Return the configuration of a variant's run."""
    hyp = {**_HYP, **series.hyp, **variant.hyp}
    return {**_BASE, **variant.config, "hyp": hyp, "epochs": series.epochs, "seed": seed}


def text_of(variant: Variant) -> str:
    """Return the model YAML of a variant; a rewriting that changes nothing is a mistake of ours."""
    text = MODEL.read_text(encoding="utf-8")
    if variant.rewrite is None:
        return text
    changed = variant.rewrite(text)
    assert changed != text, variant
    return changed


def judge_last(data_yaml: Path, out: Path, *, series: Series, seed: int) -> Score:
    """Validate the trained weights of a finished run of the base in place of their average."""
    config = parse_config(values_of(BASE, series=series, seed=seed))
    parts = made(read_data(data_yaml), config, text_of(BASE), cache="ram")
    load_into(parts.network, load_checkpoint(checkpoints_in(out / "checkpoints")[-1]).model, "network")
    with numerics(1, CPU):
        metrics = parts.wiring.evaluator()(parts.network.eval()).metrics
    return metrics.map50, metrics.map50_95
