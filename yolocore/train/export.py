"""The last act of a run: judge the best weights once more, draw what they do, announce every file.

It must not know the loop or the configuration.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yolocore.eval.plots import draw_predictions, plot_confusion, plot_curves, plot_epochs
from yolocore.eval.validate import ValidationResult
from yolocore.model.network import Network
from yolocore.spec.events import ArtifactSaved, EpochDone
from yolocore.train.checkpoint import Tensors, load_into
from yolocore.train.files import publish
from yolocore.train.outputs import RunFolder, halved

NUM_PICTURES = 8


def export_weights(
    output: RunFolder,
    *,
    rows: Sequence[EpochDone],
    best: Tensors | None,
    best_epoch: int | None,
    last: Tensors,
) -> list[ArtifactSaved]:
    """Write and announce best.pt, last.pt and results.csv; without a finished epoch the last is the best."""
    by_epoch = {row.epoch: row for row in rows}
    best_row = None if best_epoch is None else by_epoch.get(best_epoch)
    return [
        output.announce(output.weights("best.pt", last if best is None else best, best_row)),
        output.announce(output.weights("last.pt", last, rows[-1] if rows else None)),
        output.announce(output.table(rows)),
    ]


def judge_best(
    network: Network, best: Tensors, evaluate: Callable[[Network, int], ValidationResult]
) -> ValidationResult:
    """Validate the best weights as they are delivered, with pictures; the network given is only copied.

    Rounding to half precision moves scores a little; the figures are those of the file that people get.
    """
    judged = copy.deepcopy(network)
    load_into(judged, halved(best), "best weights")
    return evaluate(judged, NUM_PICTURES)


def export_pictures(
    output: RunFolder, *, result: ValidationResult, rows: Sequence[EpochDone], names: Sequence[str]
) -> list[ArtifactSaved]:
    """Draw curves, confusion matrix, losses and predictions, and announce them."""
    folder = output.artifacts
    paths: list[Path] = [
        *plot_curves(result.metrics, names, folder),
        plot_confusion(result.confusion, names, folder / "confusion_matrix.png"),
        plot_epochs([row.model_dump() for row in rows], folder / "results.png"),
    ]
    if result.samples:
        paths.append(draw_predictions(result.samples, names, folder / "predictions.jpg"))
    return [output.announce_file(path) for path in paths]


def export_figures(output: RunFolder, values: dict[str, Any]) -> ArtifactSaved:
    """Write and announce metrics.json."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    return output.announce(publish(output.artifacts / "metrics.json", text.encode(), durable=False))


def figures(result: ValidationResult, names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a validation, over all and for each class with labels, as plain JSON values."""
    metrics = result.metrics
    ap50, ap = metrics.ap[:, 0], metrics.ap.mean(1)
    classes = [
        {
            "name": names[cls],
            "labels": int(metrics.num_labels[place]),
            "precision": float(metrics.class_precision[place]),
            "recall": float(metrics.class_recall[place]),
            "map50": float(ap50[place]),
            "map50_95": float(ap[place]),
        }
        for place, cls in enumerate(metrics.classes)
    ]
    return {
        "precision": metrics.precision,
        "recall": metrics.recall,
        "map50": metrics.map50,
        "map50_95": metrics.map50_95,
        "fitness": metrics.fitness,
        "images": result.num_images,
        "labels": result.num_labels,
        "classes": classes,
    }
