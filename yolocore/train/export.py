"""The last act of a run: judge the best weights once more, draw and write what they find, announce the files.

It must not know the loop or the configuration.
"""

from __future__ import annotations

import copy
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolocore.data.collate import Batch
from yolocore.eval.plots import (
    draw_batch,
    draw_predictions,
    plot_confusion,
    plot_curves,
    plot_epochs,
    plot_labels,
)
from yolocore.eval.validate import Floats, Take, ValidationResult
from yolocore.model.network import Network
from yolocore.spec.events import ArtifactSaved, EpochDone
from yolocore.spec.labels import detection_rows
from yolocore.train.checkpoint import Best, Tensors, load_into
from yolocore.train.files import naming_full_disk, publish, whole_folder
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


@contextmanager
def written_detections(
    folder: Path, names: Sequence[str], *, wanted: bool, with_score: bool
) -> Iterator[Take | None]:
    """Yield what writes the detections of each named picture as label text; None if that is not wanted.

    The folder appears when all are judged, in place of an older one. A picture without detections has no
    file, as in YOLOv5.
    """
    if not wanted:
        yield None
        return
    places = dict(zip(names, text_paths(names), strict=True))
    with whole_folder(folder) as draft:

        def take(name: str, size_hw: tuple[int, int], detections: Floats) -> None:
            text = detection_rows(detections.tolist(), size_hw, with_score=with_score)
            if text:
                path = draft / places[name]
                with naming_full_disk(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)

        yield take


def text_paths(names: Sequence[str]) -> list[str]:
    """Return where the label text of each picture lies: as the picture does, with the suffix .txt.

    Absolute names count from the folder they have in common; of relative ones a leading `images/` is left
    out if all have it. Suffixes are kept (a.jpg.txt) if two pictures differ in nothing else. Pure.
    """
    whole = [posixpath.normpath("/" + name.lstrip("/")) for name in names]  # no way leads out of the folder
    if names and all(name.startswith("/") for name in names):
        base = posixpath.commonpath([posixpath.dirname(name) for name in whole])
    else:
        base = "/images" if all(name.startswith("/images/") for name in whole) else "/"
    inner = [posixpath.relpath(name, base) for name in whole]
    short = [posixpath.splitext(name)[0] + ".txt" for name in inner]
    return short if len(set(short)) == len(set(inner)) else [f"{name}.txt" for name in inner]


def export_pictures(
    output: RunFolder,
    *,
    result: ValidationResult,
    rows: Sequence[EpochDone],
    names: Sequence[str],
    labels: Sequence[NDArray[Any]],
    batches: Iterable[Batch],
) -> list[ArtifactSaved]:
    """Draw curves, confusion matrix, losses, predictions and what was trained on, and announce them.

    `labels` are rows (n, 5) `class x y w h`, normalised, of each training image; `batches` the first ones.
    """
    folder = output.artifacts
    paths = [
        *draw_result(result, names, folder),
        plot_epochs([row.model_dump() for row in rows], folder / "results.png"),
        plot_labels(np.concatenate(labels), names, folder / "labels.png"),
    ]
    for number, batch in enumerate(batches):
        images = batch.images.permute(0, 2, 3, 1).numpy()
        paths.append(draw_batch(images, batch.targets.numpy(), names, folder / f"train_batch{number}.jpg"))
    return [output.announce_file(path) for path in paths]


def draw_result(result: ValidationResult, names: Sequence[str], folder: Path) -> list[Path]:
    """Draw curves, confusion matrix and predictions beside the labels of one validation; return the files."""
    paths = [
        *plot_curves(result.metrics, names, folder),
        plot_confusion(result.confusion, names, folder / "confusion_matrix.png"),
    ]
    if result.samples:
        paths.append(draw_predictions(result.samples, names, folder / "predictions.jpg"))
    return paths


def export_figures(output: RunFolder, values: dict[str, Any]) -> ArtifactSaved:
    """Write and announce metrics.json."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    return output.announce(publish(output.artifacts / "metrics.json", text.encode(), durable=False))


def row_metrics(rows: Sequence[EpochDone], best: Best | None) -> dict[str, Any] | None:
    """Return the figures of the best epoch's row, None if no epoch was finished."""
    names = ("precision", "recall", "map50", "map50_95", "fitness")
    for row in rows:
        if best is not None and row.epoch == best.epoch:
            return {name: getattr(row, name) for name in names}
    return None


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
