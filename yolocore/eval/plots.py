"""Pictures of a run's result: curves, confusion matrix, losses over epochs, predictions beside ground truth.

matplotlib is imported when the first figure is drawn, not before, so that a run starts without waiting for
it; no global figure state is used. It must not know where artifacts are kept: every function takes the path
to write.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from yolocore.eval.annotate import CAPTION, PALETTE, draw_box, write
from yolocore.eval.metrics import DetectionMetrics
from yolocore.eval.validate import Sample
from yolocore.ops.nms import suppress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {"map50": "mAP50", "map50_95": "mAP50-95"}
_MAX_CLASS_LINES = 20
_MAX_NUMBERED_CELLS = 30
_BLANK_BELOW = 0.005
_MAX_HEAT_CELLS = 50
_MAX_OUTLINES = 1000
_CELL_PX, _CAPTION_PX = 320, 16
_PICTURE_IOU = 0.6


def plot_curves(metrics: DetectionMetrics, names: Sequence[str], folder: Path) -> list[Path]:
    """Write PR_curve.png, P_curve.png, R_curve.png and F1_curve.png at IoU 0.5; return their paths."""
    curves = metrics.curves
    ap50 = [
        f"{_label(names, cls)} {ap:.3f}" for cls, ap in zip(metrics.classes, metrics.ap[:, 0], strict=True)
    ]
    plain = [_label(names, cls) for cls in metrics.classes]
    score, best = "Confidence", f"at {metrics.best_score:.3f}"
    pictures: list[tuple[str, NDArray[Any], list[str], str, str, str]] = [
        ("PR", curves.precision_at_recall, ap50, "Recall", "Precision", f"mAP50 {metrics.map50:.3f}"),
        ("P", curves.precision, plain, score, "Precision", f"{metrics.precision:.3f} {best}"),
        ("R", curves.recall, plain, score, "Recall", f"{metrics.recall:.3f} {best}"),
        ("F1", curves.f1, plain, score, "F1", f"{_mean(metrics.class_f1):.3f} {best}"),
    ]
    paths = []
    for stem, lines, labels, x_label, y_label, summary in pictures:
        figure = _figure(9, 6)
        axes = figure.add_subplot()
        _draw_lines(axes, curves.at, lines, labels, f"all classes {summary}")
        axes.set(
            xlabel=x_label,
            ylabel=y_label,
            xlim=(0, 1),
            ylim=(0, 1.02),
            title=f"{y_label} over {x_label.lower()}",
        )
        paths.append(_save(figure, folder / f"{stem}_curve.png"))
    return paths


def _draw_lines(
    axes: Axes, at: NDArray[Any], lines: NDArray[Any], labels: Sequence[str], summary: str
) -> None:
    few = 0 < len(lines) <= _MAX_CLASS_LINES
    for number, (line, label) in enumerate(zip(lines, labels, strict=True)):
        axes.plot(
            at, line, linewidth=1, color=_colour(number) if few else "0.8", label=label if few else None
        )
    mean = lines.mean(0) if len(lines) else np.zeros_like(at)
    axes.plot(at, mean, linewidth=3, color="black", label=summary)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.grid(alpha=0.3)


def plot_confusion(confusion: NDArray[np.int64], names: Sequence[str], path: Path) -> Path:
    """Write a confusion matrix (rows predicted, columns true, last = background) as shares of each column."""
    shares = confusion / (confusion.sum(0, keepdims=True) + 1e-9)
    shown = np.where(shares < _BLANK_BELOW, np.nan, shares)
    ticks = [*(_label(names, cls) for cls in range(len(confusion) - 1)), "background"]
    side = min(max(5.0, 0.6 * len(ticks) + 3), 16.0)
    figure = _figure(side + 1, side)
    axes = figure.add_subplot()
    image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.045)
    if len(ticks) <= _MAX_NUMBERED_CELLS:
        axes.set_xticks(range(len(ticks)), ticks, rotation=90)
        axes.set_yticks(range(len(ticks)), ticks)
        for row, column in np.argwhere(~np.isnan(shown)):
            share = shown[row, column]
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="True", ylabel="Predicted", title="Confusion matrix, share of each true class")
    return _save(figure, path)


def plot_epochs(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write losses and metrics over epochs.

    `rows` as in `epoch` events: `train` and `val` {box, obj, cls} (val may be None), `precision`, `recall`,
    `map50`, `map50_95`; a missing or None value leaves a gap.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(14, 7)
    panels = [figure.add_subplot(2, 4, place + 1) for place in range(8)]
    epochs = [int(row["epoch"]) + 1 for row in rows]
    for axes, part in zip(panels[:3], ("box", "obj", "cls"), strict=True):
        for side, colour in (("train", _colour(0)), ("val", _colour(3))):
            values = [_number((row.get(side) or {}).get(part)) for row in rows]
            axes.plot(epochs, values, color=colour, label=side, marker="." if len(rows) < 30 else None)
        axes.set_title(f"{part} loss")
        axes.legend(frameon=False)
    metrics = ("fitness", "precision", "recall", "map50", "map50_95")
    for axes, name in zip(panels[3:], metrics, strict=True):
        values = [_number(row.get(name)) for row in rows]
        axes.plot(epochs, values, color=_colour(2), marker="." if len(rows) < 30 else None)
        axes.set_title(_TITLES.get(name, name))
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    return _save(figure, path)


def plot_labels(rows: NDArray[Any], names: Sequence[str], path: Path) -> Path:
    """Write what labels (n, 5) `class x y w h`, normalised, are like: counts, places, sizes, outlines."""
    figure = _figure(11, 9)
    counts = np.bincount(rows[:, 0].astype(np.int64), minlength=len(names))
    bars = figure.add_subplot(2, 2, 1)
    bars.bar(range(len(counts)), counts, color=[_colour(cls) for cls in range(len(counts))])
    bars.set(title=f"{len(rows)} labels", ylabel="labels", xlim=(-0.6, max(len(counts), 1) - 0.4))
    if len(counts) <= _MAX_CLASS_LINES:
        for cls, count in enumerate(counts):
            bars.text(cls, count, str(count), ha="center", va="bottom", fontsize=8)
        bars.set_xticks(range(len(counts)), [_label(names, cls) for cls in range(len(counts))], rotation=90)
    else:
        bars.set_xlabel("class")
    _draw_outlines(figure.add_subplot(2, 2, 2), rows)
    _draw_heat(figure, 3, rows[:, 1:3], "Centres", ("x", "y"), as_picture=True)
    _draw_heat(figure, 4, rows[:, 3:5], "Sizes", ("width", "height"), as_picture=False)
    return _save(figure, path)


def _draw_heat(
    figure: Figure, place: int, points: NDArray[Any], title: str, words: tuple[str, str], *, as_picture: bool
) -> None:
    """Count points (n, 2) from 0 to 1 in cells, the coarser the fewer they are; downwards as in a picture."""
    from matplotlib.ticker import MaxNLocator

    cells = int(np.clip(2 * np.sqrt(len(points)), 10, _MAX_HEAT_CELLS))
    heat, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=cells, range=((0, 1), (0, 1)))
    heat[heat == 0] = np.nan
    axes = figure.add_subplot(2, 2, place)
    axes.set_facecolor("0.95")
    image = axes.imshow(
        heat,
        cmap="viridis",
        vmin=0,
        origin="upper" if as_picture else "lower",
        extent=(0, 1, 1, 0) if as_picture else (0, 1, 0, 1),
    )
    figure.colorbar(image, ax=axes, fraction=0.045, ticks=MaxNLocator(integer=True))
    x_label, y_label = (f"{word}, share of the image" for word in words)
    axes.set(title=f"{title}, labels of a cell", xlabel=x_label, ylabel=y_label)


def _draw_outlines(axes: Axes, rows: NDArray[Any]) -> None:
    """Draw boxes around one centre; of very many, evenly chosen ones."""
    from matplotlib.collections import LineCollection

    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_OUTLINES)).astype(np.int64)]
    half = chosen[:, 3:5] / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    outlines = 0.5 + half[:, None] * corners
    colours = [_colour(int(cls)) for cls in chosen[:, 0]]
    axes.add_collection(LineCollection(list(outlines), colors=colours, linewidths=0.6, alpha=0.6))
    axes.set(title="Boxes around one centre", xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[])


def draw_batch(
    images: NDArray[np.uint8], targets: NDArray[Any], names: Sequence[str], path: Path, *, columns: int = 4
) -> Path:
    """Write the first 16 images (b, h, w, 3) RGB of a batch with their boxes.

    `targets` (n, 6) image, class, x, y, w, h, normalised.
    """
    cells, cell_height = [], _cell_height(images)
    for number, image in enumerate(images[: columns * columns]):
        height, width = image.shape[:2]
        size = np.array([width, height] * 2)
        own = targets[targets[:, 0] == number]
        boxes = np.concatenate((own[:, 2:4] - own[:, 4:6] / 2, own[:, 2:4] + own[:, 4:6] / 2), 1) * size
        drawn = [(box, int(row[1]), "") for box, row in zip(boxes, own, strict=True)]
        cells.append(_draw_boxes(image, drawn, names, cell_height))
    return _write_grid(cells, path, columns)


def draw_predictions(
    samples: Sequence[Sample], names: Sequence[str], path: Path, *, conf_thres: float = 0.25, columns: int = 2
) -> Path:
    """Write a grid of pictures, each with its labels and beside it with detections above `conf_thres`."""
    assert samples, "nothing to draw"
    height = _cell_height([sample.image for sample in samples]) + _CAPTION_PX
    return _write_grid([_draw_pair(sample, names, conf_thres, height) for sample in samples], path, columns)


def _write_grid(cells: list[NDArray[np.uint8]], path: Path, columns: int) -> Path:
    """Write cells of one size row by row; a last row that is not full ends in white."""
    while len(cells) % columns and len(cells) > columns:
        cells.append(np.full_like(cells[0], 255))
    width = min(columns, len(cells))
    grid = np.vstack([np.hstack(cells[start : start + width]) for start in range(0, len(cells), width)])
    if not cv2.imwrite(str(path), cv2.cvtColor(grid, cv2.COLOR_RGB2BGR)):
        raise OSError(f"the picture {path} could not be written")
    return path


def _draw_pair(sample: Sample, names: Sequence[str], conf_thres: float, height: int) -> NDArray[np.uint8]:
    truth = [(row[1:5], int(row[0]), "") for row in sample.labels]
    found = [(row[:4], int(row[5]), f" {row[4]:.2f}") for row in _shown(sample.detections, conf_thres)]
    left = _draw_boxes(sample.image, truth, names, height, f"{Path(sample.path).name}: labels")
    return np.hstack((left, _draw_boxes(sample.image, found, names, height, "detections")))


def _shown(detections: NDArray[Any], conf_thres: float) -> NDArray[Any]:
    """Return what a person should see: the best class of each place, weakest first so that none is covered.

    Validation keeps a box once for every class it may be; drawn over each other they would hide the best.
    """
    strong = torch.from_numpy(detections[detections[:, 4] > conf_thres])
    best = suppress(strong, _PICTURE_IOU, agnostic=True, max_det=len(strong)) if len(strong) else strong
    return best.flip(0).numpy()


def _cell_height(images: Iterable[NDArray[np.uint8]]) -> int:
    """Return how high cells of _CELL_PX must be for images fitted into squares of that side."""
    sizes_hw: list[tuple[int, int]] = [(image.shape[0], image.shape[1]) for image in images]
    return max(max(round(_CELL_PX * height / max(height, width)), 1) for height, width in sizes_hw)


def _draw_boxes(
    image: NDArray[np.uint8],
    boxes: Sequence[tuple[NDArray[Any], int, str]],
    names: Sequence[str],
    cell_height: int,
    caption: str | None = None,
) -> NDArray[np.uint8]:
    """Return a cell with the picture fitted in, RGB, a caption below it if there is one."""
    gain = _CELL_PX / max(image.shape[:2])
    height, width = (max(1, round(side * gain)) for side in image.shape[:2])
    cell = np.full((cell_height, _CELL_PX, 3), 114, np.uint8)
    cell[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    for box_xyxy_px, cls, note in boxes:
        draw_box(cell, box_xyxy_px * gain, names, cls, note=note)
    if caption is not None:
        cell[-_CAPTION_PX:] = CAPTION
        write(cell, caption if caption.isascii() else "picture: labels", (0, cell_height - 1), CAPTION)
    cell[:, -1] = cell[0] = 255
    return cell


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    with warnings.catch_warnings():
        # A class name in a script that no installed font has is drawn as boxes; that is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=110, format="png")
    return path


def _label(names: Sequence[str], cls: int) -> str:
    """Return a class name that matplotlib takes literally: no mathematics, no hidden legend entry."""
    name = names[cls] if cls < len(names) else f"#{cls}"
    return name.replace("$", r"\$") if not name.startswith("_") else " " + name.replace("$", r"\$")


def _colour(number: int) -> tuple[float, float, float]:
    red, green, blue = PALETTE[number % len(PALETTE)]
    return red / 255, green / 255, blue / 255


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 0.0
