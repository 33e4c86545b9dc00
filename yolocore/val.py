"""Validation alone: weights and data in, the figures of one split out, as the run that made them judged them.

Beside `run.py` and the wiring it sees a whole configuration: the one that lies in the weights. It must not
know commands or where results go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolocore.data.files import Sample, as_single_class, scan_yolo_folder
from yolocore.detector import Detector, load_detector
from yolocore.errors import ConfigError, DatasetError
from yolocore.eval.validate import Take, ValidationResult
from yolocore.spec.config import TrainConfig, parse_config
from yolocore.spec.dataset import Split
from yolocore.train.inputs import Data, tell_problems, usable_device
from yolocore.train.numerics import numerics
from yolocore.train.precision import Precision, resolve_precision
from yolocore.train.request import RunSettings
from yolocore.wiring import Wiring

Warn = Callable[[str, str], None]


@dataclass(frozen=True)
class ValRequest:
    """What to validate on; None takes what the weights were trained and validated with, else the defaults."""

    weights: Path
    data_yaml: Path
    split: Split = "val"
    cfg: tuple[str, str] | None = None
    imgsz: int | None = None
    batch: int | None = None
    conf_thres: float | None = None
    iou_thres: float | None = None
    max_det: int | None = None
    device: str = "cpu"
    threads: int | None = None
    loader_threads: int = 1


class Validation:
    """One split held against one file of weights; nothing is computed before `judge`.

    Raises CoreError for weights and data that cannot be used, or not with each other.
    """

    def __init__(self, request: ValRequest, *, warn: Warn) -> None:
        self._request = request
        self._warn = warn
        self.device = usable_device(request.device)
        self.detector = load_detector(
            request.weights, imgsz=request.imgsz, device=self.device, cfg=request.cfg
        )
        self.config = settled(self.detector.config, request)
        names, samples = _read(request, warn)
        if self.config.single_cls:
            samples = as_single_class(samples)
            names = names if len(names) == 1 else self.detector.names
        _check_names(self.detector, names, request.data_yaml, warn)
        self.names, self.samples = names, samples

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures, as the detections of each are told by."""
        return [sample.name or str(sample.path) for sample in self.samples]

    def judge(self, *, num_samples: int = 0, take: Take | None = None) -> ValidationResult:
        """Validate; keep `num_samples` pictures for drawing; `take` gets the detections of each picture."""
        with numerics(self.config.threads or self._request.threads, self.device):
            evaluate = self._wiring().evaluator()
            return evaluate(self.detector.network, num_samples, take=take)

    def _wiring(self) -> Wiring:
        detector, request = self.detector, self._request
        return Wiring(
            config=self.config,
            settings=RunSettings(device=request.device, loader_threads=request.loader_threads),
            device=self.device,
            precision=Precision(resolve_precision(self.config.precision, self.device), self.device),
            data=Data(self.names, [], self.samples),
            imgsz=detector.imgsz,
            strides=[int(stride) for stride in detector.plan.strides],
            val_stride=detector.stride,
            batch=detector.batch,
            anchors_grid=detector.network.head.anchors.detach().float().cpu().numpy(),
            warn=self._warn,
            check=lambda: None,
        )


def settled(config: TrainConfig, request: ValRequest) -> TrainConfig:
    """Return the configuration with what is asked for laid over it; raises ConfigError. Pure."""
    values: dict[str, Any] = config.model_dump(mode="json")
    asked = {name: getattr(request, name) for name in ("batch", "conf_thres", "iou_thres", "max_det")}
    values["val"] |= {name: value for name, value in asked.items() if value is not None}
    return parse_config(values)


def _read(request: ValRequest, warn: Warn) -> tuple[list[str], list[Sample]]:
    names, splits, problems = scan_yolo_folder(request.data_yaml, (request.split,))
    tell_problems(problems, request.data_yaml.name, warn)
    samples = splits[request.split]
    if not samples:
        raise DatasetError(
            f"there are no images in the split {request.split}, or none that can be used",
            place=request.split,
            problems=problems,
        )
    if not any(len(sample.rows) for sample in samples):
        warn("NO_LABELS", f"no image in the split {request.split} has a label; every figure will be 0")
    return list(names), samples


def _check_names(detector: Detector, names: list[str], data_yaml: Path, warn: Warn) -> None:
    if len(names) != len(detector.names):
        raise ConfigError(
            f"the weights know {len(detector.names)} classes, the data {len(names)}",
            place=data_yaml.name,
            value=", ".join(names[:5]),
        )
    if names != detector.names:
        first = next(number for number, name in enumerate(names) if name != detector.names[number])
        warn(
            "NAMES_DIFFER",
            f"class {first} is {detector.names[first]!r} in the weights and {names[first]!r} in the data",
        )
