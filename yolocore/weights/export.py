"""Writes a built detector as an ONNX or TorchScript file, each compared with its source before it appears.

It is given a module that maps pictures to decoded rows and must not know what network that is. ONNX goes
through torch's TorchScript-based exporter: deprecated, but with the pinned torch it needs no further package,
takes a tenth of the time of the newer one, and keeps sizes open where that one refuses this network. onnx
and onnxruntime are imported when they are needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from yolocore.errors import ConfigError, ExportError
from yolocore.ops.nms import non_max_suppression
from yolocore.weights.check import (
    HALF,
    SINGLE,
    Difference,
    Floats,
    compare_detections,
    compare_rows,
    probes,
)
from yolocore.weights.onnx_nms import DETECTIONS, ROWS, Suppression, append_suppression

Format = Literal["onnx", "torchscript"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".torchscript"}
IMAGES = "images"
OPSET, OPSETS = 17, range(12, 21)
LIVELY_ROWS = 100
# Computes the rows of pictures, and with a threshold their detections, as a user's program would.
Runner = Callable[[Floats, float | None], tuple[Floats, Floats | None]]


@dataclass(frozen=True)
class Shape:
    """What a file takes: so many pictures of (height, width) pixels; with `dynamic` others too.

    Other sizes are multiples of `stride` pixels.
    """

    batch: int
    size_hw: tuple[int, int]
    dynamic: bool = False
    stride: int = 32

    def examples(self) -> list[tuple[int, int, int, int]]:
        """Return shapes to compare on, the one that is traced first."""
        height, width = self.size_hw
        shapes = [(self.batch, 3, height, width)]
        if self.dynamic:
            shapes.append((self.batch + 1, 3, height + self.stride, max(width - self.stride, self.stride)))
        return shapes


@dataclass(frozen=True)
class Exported:
    """A file that was found equal to its source, and the report beside it."""

    path: Path
    report_path: Path
    report: dict[str, Any]


def export(
    module: nn.Module,
    path: Path,
    *,
    kind: Format,
    shape: Shape,
    metadata: Mapping[str, Any],
    half: bool = False,
    opset: int = OPSET,
    suppression: Suppression | None = None,
    pictures: Sequence[tuple[str, Floats]] = (),
) -> Exported:
    """Write `module` to `path`, and beside it `path` + ".json", how it compares with the module.

    `module` maps (b, 3, h, w) pictures from 0 to 1 to decoded rows (b, n, 5 + classes). `metadata` lies in
    the file, each value that is not text as JSON. `half` says that it computes in half precision. `pictures`
    are named inputs to compare on, beside noise and made-up scenery. Raises ExportError, and leaves no file,
    where it cannot be written in this form or computes something else; ConfigError where the form contradicts
    itself or a package for it is missing.
    """
    _check_form(kind, opset, suppression)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    content = _content(module, kind, shape, opset, suppression, texts)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(content)
        inputs = [*probes(shape.examples()), *pictures]
        differences = _compared(module, kind, draft, inputs, half, suppression)
        report = {
            "format": kind,
            "file": path.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "input": [shape.batch, 3, *shape.size_hw],
            "dynamic": shape.dynamic,
            "half": half,
            "opset": opset if kind == "onnx" else None,
            "nms": asdict(suppression) if suppression else None,
            "made_with": _versions(kind),
            "tolerance": asdict(HALF if half else SINGLE),
            "comparisons": [difference.as_dict() for difference in differences],
            "metadata": texts,
        }
        wrong = [difference for difference in differences if not difference.ok]
        if wrong:
            raise ExportError(
                f"the {kind} file computes something else than its source: on {wrong[0].probe} boxes differ "
                f"by up to {wrong[0].box_max_abs_px:.3g} px, scores by {wrong[0].score_max_abs:.3g}, "
                f"{wrong[0].unmatched} rows have no partner",
                place=path.name,
            )
        report_path = path.with_name(f"{path.name}.json")
        report_path.write_text(json.dumps(report, indent=2) + "\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return Exported(path, report_path, report)


def missing_packages(kind: Format) -> list[str]:
    """Return the packages that a format needs and that are not installed."""
    needed = ("onnx", "onnxruntime") if kind == "onnx" else ()
    return [name for name in needed if importlib.util.find_spec(name) is None]


def _check_form(kind: Format, opset: int, suppression: Suppression | None) -> None:
    missing = missing_packages(kind)
    if missing:
        raise ConfigError(
            f"{kind} needs {' and '.join(missing)}: pip install 'trainshed[export]'",
            place="--format",
            value=kind,
        )
    if suppression is not None and kind != "onnx":
        raise ConfigError("suppression is built into onnx files only", place="--nms", value=kind)
    if opset not in OPSETS:
        raise ConfigError(f"an opset from {OPSETS[0]} to {OPSETS[-1]}", place="--opset", value=str(opset))


def _content(
    module: nn.Module,
    kind: Format,
    shape: Shape,
    opset: int,
    suppression: Suppression | None,
    texts: Mapping[str, str],
) -> bytes:
    example = torch.from_numpy(next(probes(shape.examples()))[1])
    try:
        with _quiet(), torch.no_grad():
            if kind == "torchscript":
                return _torchscript(module, example, texts)
            return _onnx(module, example, shape.dynamic, opset, suppression, texts)
    except Exception as error:  # exporters raise whatever their parts raise
        raise ExportError(f"this network cannot be written as {kind}: {error}", value=kind) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what tracers say of their own age, and of every size that becomes part of the file."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, TracerWarning):
            warnings.filterwarnings("ignore", category=kind)
        yield


def _onnx(
    module: nn.Module,
    example: torch.Tensor,
    dynamic: bool,
    opset: int,
    suppression: Suppression | None,
    texts: Mapping[str, str],
) -> bytes:
    import onnx

    buffer: Any = io.BytesIO()
    torch.onnx.export(
        module,
        (example,),
        buffer,
        dynamo=False,
        opset_version=opset,
        input_names=[IMAGES],
        output_names=[ROWS],
        dynamic_axes={IMAGES: {0: "batch", 2: "height", 3: "width"}, ROWS: {0: "batch", 1: "rows"}}
        if dynamic
        else None,
    )
    model = onnx.load_model_from_string(buffer.getvalue())
    if suppression is not None:
        append_suppression(model, suppression)
    onnx.helper.set_model_props(model, dict(sorted(texts.items())))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _torchscript(module: nn.Module, example: torch.Tensor, texts: Mapping[str, str]) -> bytes:
    traced = torch.jit.trace(module, (example,), check_trace=False)  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    note = {**texts, "shape": list(example.shape)}
    torch.jit.save(traced, buffer, _extra_files={"config.txt": json.dumps(note, sort_keys=True)})
    return _without_sources(buffer.getvalue())


def _without_sources(content: bytes) -> bytes:
    """Return a TorchScript archive without the paths of the program that wrote it, aligned as torch does."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for item in old.infolist():
            if item.filename.endswith(".debug_pkl"):
                continue
            entry = zipfile.ZipInfo(item.filename)
            start = result.tell() + 30 + len(item.filename.encode()) + 4
            padding = -start % 64
            entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            new.writestr(entry, old.read(item))
    return result.getvalue()


def _runner(kind: Format, path: Path) -> Runner:
    """Return what computes with the file as a user's program would."""
    if kind == "torchscript":
        with _quiet():
            script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]

        def run_script(images: Floats, conf_thres: float | None) -> tuple[Floats, Floats | None]:
            with torch.no_grad():
                rows: Floats = script(torch.from_numpy(images)).numpy()
            return rows, None

        return run_script

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run_session(images: Floats, conf_thres: float | None) -> tuple[Floats, Floats | None]:
        if conf_thres is None:
            rows: Floats = session.run([ROWS], {IMAGES: images})[0]
            return rows, None
        wish = {"conf_thres": np.array([conf_thres], np.float32)}
        rows, detections = session.run([ROWS, DETECTIONS], {IMAGES: images, **wish})
        return rows, detections

    return run_session


def _compared(
    module: nn.Module,
    kind: Format,
    path: Path,
    inputs: Sequence[tuple[str, Floats]],
    half: bool,
    suppression: Suppression | None,
) -> list[Difference]:
    """Compare the file with the module; raises ExportError where it cannot be run."""
    try:
        return _compare(module, _runner(kind, path), inputs, half, suppression)
    except Exception as error:  # those of onnxruntime have no other base
        raise ExportError(f"the {kind} file cannot be run: {error}", value=kind) from error


def _compare(
    module: nn.Module,
    run: Runner,
    inputs: Sequence[tuple[str, Floats]],
    half: bool,
    suppression: Suppression | None,
) -> list[Difference]:
    """Compare rows with the module's, and detections with our suppression of the file's own rows.

    Of rows that are equal to the sixth digit, suppression may keep others: which of two scores is higher
    hangs on the seventh.
    """
    tolerance = HALF if half else SINGLE
    differences = []
    for name, images in inputs:
        with torch.no_grad():
            own = module(torch.from_numpy(images))
        rows, _ = run(images, None)
        differences.append(compare_rows(name, images.shape, own.numpy(), rows, tolerance))
        if suppression is None:
            continue
        for conf_thres in (suppression.conf_thres, _lively(own)):
            rows, found = run(images, conf_thres)
            assert found is not None
            expected = _suppressed(torch.from_numpy(rows), suppression, conf_thres)
            label = f"{name}, {DETECTIONS} above {conf_thres:.6g}"
            differences.append(compare_detections(label, images.shape, expected, found, SINGLE))
    return differences


def _lively(decoded: torch.Tensor) -> float:
    """Return a threshold that some hundred rows of a picture pass, so that there is something to suppress."""
    scores = (decoded[0, :, 4:5] * decoded[0, :, 5:]).amax(1).sort(descending=True).values
    return float(scores[min(LIVELY_ROWS, len(scores) - 1)])


def _suppressed(decoded: torch.Tensor, options: Suppression, conf_thres: float) -> Floats:
    found = non_max_suppression(
        decoded,
        conf_thres=float(np.float32(conf_thres)),
        iou_thres=options.iou_thres,
        agnostic=options.agnostic,
        max_det=options.max_det,
    )
    numbered: Sequence[Floats] = [
        np.insert(rows.numpy(), 0, number, axis=1) for number, rows in enumerate(found)
    ]
    return np.concatenate(numbered).astype(np.float32)


def _versions(kind: Format) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", *(("onnx", "onnxruntime") if kind == "onnx" else ()))}
