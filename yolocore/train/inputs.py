"""What a run works on, read and checked: the device, the samples of its splits, the plan of its network.

It must not know the configuration or the loop.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from yolocore.data.files import Sample, as_single_class, manifest_samples, scan_yolo_folder
from yolocore.errors import ArchitectureError, ConfigError, DatasetError, Problem
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.dataset import Manifest
from yolocore.spec.events import Log, TrainEvent, Warned
from yolocore.spec.plan import Plan, plan_architecture
from yolocore.spec.strides import common_stride
from yolocore.train.schedule import trained_size
from yolocore.weights.read import read_weights
from yolocore.weights.transfer import transfer

Warn = Callable[[str, str], None]
MAX_TOLD = 20


@dataclass(frozen=True)
class Data:
    """Class names and the samples of the two splits a run needs."""

    names: list[str]
    train: list[Sample]
    val: list[Sample]


def usable_device(name: str) -> torch.device:
    """Return the device of this name; raises ConfigError where the machine lacks it."""
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError("there is no such device on this machine", place="/runtime/device", value=name)
    return device


def read_manifest(manifest: Path, images_root: Path, *, single_cls: bool, warn: Warn) -> Data:
    """Read names and samples from a manifest; raises DatasetError."""
    parsed = Manifest.parse(manifest.read_bytes())
    samples = manifest_samples(parsed, images_root)
    splits = {name: [sample for sample in samples if sample.split == name] for name in ("train", "val")}
    return _checked(parsed.names, splits, single_cls=single_cls, warn=warn)


def read_folder(data_yaml: Path, *, single_cls: bool, warn: Warn) -> Data:
    """Read names and samples from a YOLO folder; `warn` hears of every bad image. Raises DatasetError."""
    names, splits, problems = scan_yolo_folder(data_yaml)
    tell_problems(problems, data_yaml.name, warn)
    return _checked(names, splits, single_cls=single_cls, warn=warn, problems=problems)


def plan_run(text: str, *, name: str, num_classes: int, imgsz: int, anchors: int | None = None) -> Plan:
    """Plan the network of a model YAML for these classes and this size; raises ArchitectureError.

    `anchors` of a level, whose sizes are to be fitted to the data, replace those of the file.
    """
    architecture = parse_architecture(text, source=name)
    plan = plan_architecture(architecture, num_classes=num_classes, anchors=anchors)
    side = trained_size(imgsz, int(max(plan.strides)))
    plan = plan_architecture(architecture, num_classes=num_classes, anchors=anchors, imgsz=(side, side))
    if plan.head_kind != "Detect" or plan.in_channels != 3:
        raise ArchitectureError(
            "only detection on three-channel images can be trained",
            place=name,
            value=f"{plan.head_kind}, {plan.in_channels} channels",
        )
    return plan


def start_from(network: nn.Module, weights: Path, emit: Callable[[TrainEvent], None]) -> None:
    """Copy what fits of a weights file into a fresh network, and tell what does not.

    A run always names its model, so anchors stay the model's. Raises CheckpointError.
    """
    given = read_weights(weights)
    if given.not_finite:
        emit(
            Warned(
                code="WEIGHTS_NOT_FINITE",
                message=f"{len(given.not_finite)} tensors of the given weights hold NaN or infinity "
                "and are left out",
                place=given.not_finite[0],
            )
        )
    emit(Log(message=transfer(network, given.tensors, keep_anchors=True).summary()))


def val_stride(plan: Plan) -> int:
    """Return what the sides of validation pictures are multiples of, in pixels.

    All strides of the head, and those of rows that are deeper than it: an odd map on the way down does not
    meet its partner on the way up.
    """
    return math.lcm(32, *(int(stride) for stride in plan.strides), common_stride(plan.architecture))


def tell_problems(problems: Sequence[Problem], source: str, warn: Warn) -> None:
    """Warn of each problem with its place and value; of many of one kind, of the first ones and how many."""
    counts: Counter[str] = Counter()
    for problem in problems:
        counts[problem.code] += 1
        if counts[problem.code] <= MAX_TOLD:
            place = f"{problem.file or source}{f':{problem.line}' if problem.line else ''}"
            warn(problem.code, f"{place}: {problem.message}{f' ({problem.value})' if problem.value else ''}")
    for code, count in counts.items():
        if count > MAX_TOLD:
            warn(code, f"{count - MAX_TOLD} more of this kind")


def _checked(
    names: Sequence[str],
    splits: Mapping[str, list[Sample]],
    *,
    single_cls: bool,
    warn: Warn,
    problems: Sequence[Problem] = (),
) -> Data:
    for split in ("train", "val"):
        if not splits[split]:
            raise DatasetError(
                f"there are no images in the split {split}, or none that can be used",
                place=split,
                problems=problems[:MAX_TOLD],
            )
    if not _labelled(splits["train"]):
        raise DatasetError(
            f"none of the {len(splits['train'])} images in the split train has a label; there is nothing "
            "to learn",
            code="NO_LABELS",
            place="train",
        )
    if not _labelled(splits["val"]):
        warn("NO_LABELS", "no image in the split val has a label; every figure of quality will be 0")
    if single_cls:
        names = names if len(names) == 1 else ["item"]
        splits = {name: as_single_class(samples) for name, samples in splits.items()}
    _tell_unlabelled_classes(names, splits["train"], warn)
    return Data(list(names), splits["train"], splits["val"])


def _tell_unlabelled_classes(names: Sequence[str], samples: Sequence[Sample], warn: Warn) -> None:
    seen = {int(cls) for sample in samples for cls in sample.rows[:, 0]}
    missing = [name for number, name in enumerate(names) if number not in seen]
    if missing:
        shown = ", ".join(missing[:MAX_TOLD]) + (", ..." if len(missing) > MAX_TOLD else "")
        warn(
            "CLASS_WITHOUT_LABELS",
            f"{len(missing)} of {len(names)} classes have no label in the split train and cannot be learned: "
            f"{shown}",
        )


def _labelled(samples: Sequence[Sample]) -> bool:
    return any(len(sample.rows) for sample in samples)
