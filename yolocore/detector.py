"""A detector from a file of weights alone: published ones, or our own, which also say how they were trained.

It must not know data, commands or where results go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from yolocore.errors import CheckpointError
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.config import TrainConfig, parse_config
from yolocore.spec.plan import Plan
from yolocore.spec.zoo import ZOO, zoo_text
from yolocore.train.inputs import plan_run, val_stride
from yolocore.train.outputs import FORMAT
from yolocore.weights.read import ForeignWeights, read_weights
from yolocore.weights.transfer import transfer

COCO_CLASSES = 80
MAX_NAMED = 5


@dataclass(frozen=True)
class Detector:
    """A network in eval mode with what its file says of it.

    `config` is what it was trained with, the defaults where the file does not say; `batch` the images of a
    training batch; `imgsz` the longer side in pixels it works at; `stride` what sides are multiples of.
    """

    network: Network
    plan: Plan
    names: list[str]
    config: TrainConfig
    batch: int
    weights: ForeignWeights

    @property
    def is_own(self) -> bool:
        """Whether it was trained here, and `config` is what it was trained with."""
        return _own(self.weights)

    @property
    def imgsz(self) -> int:
        """The longer side of its pictures in pixels."""
        return self.plan.imgsz[0]

    @property
    def stride(self) -> int:
        """What the sides of its pictures are multiples of, in pixels."""
        return val_stride(self.plan)


def load_detector(
    path: Path,
    *,
    imgsz: int | None = None,
    device: torch.device | str = "cpu",
    cfg: tuple[str, str] | None = None,
) -> Detector:
    """Read weights and build their network; `imgsz` and `cfg` (name and text of a model YAML) replace theirs.

    Raises CheckpointError where the file is no detector, or does not fill the network; ArchitectureError
    where its model cannot be built.
    """
    given = read_weights(path)
    if given.not_finite:
        raise CheckpointError(
            f"{len(given.not_finite)} tensors of the weights hold NaN or infinity",
            code="WEIGHTS_NOT_FINITE",
            place=given.not_finite[0],
        )
    config = _config(given, path)
    name, text = cfg or _architecture(given, path)
    num_classes = given.num_classes or _num_outputs(given) or COCO_CLASSES
    plan = plan_run(
        text,
        name=name,
        num_classes=num_classes,
        imgsz=imgsz or _whole(given.metadata.get("imgsz")) or config.imgsz,
        anchors=None if config.hyp.anchors is None else round(config.hyp.anchors),
    )
    network = build_network(plan)
    taken = transfer(network, given.tensors, keep_anchors=False)
    missing = [str(item) for item in taken.left_out if item.reason != "unknown" and _learned(item.name)]
    if missing:
        shown = ", ".join(missing[:MAX_NAMED])
        raise CheckpointError(
            f"the weights do not fill the network of {name}: {shown}; name its model YAML with --cfg",
            code="WEIGHTS_DO_NOT_FIT",
            place=path.name,
            value=f"{taken.loaded} of {taken.total} tensors",
        )
    names = list(given.names) or [str(number) for number in range(num_classes)]
    return Detector(
        network=network.to(device).eval().requires_grad_(False),
        plan=plan,
        names=names,
        config=config,
        batch=_whole(given.metadata.get("batch")) or max(config.batch, 1),
        weights=given,
    )


def _num_outputs(given: ForeignWeights) -> int | None:
    """Return for how many classes the head has outputs, None if its tensors have other names."""
    for key, tensor in given.tensors.items():
        bias = given.tensors.get(key.replace(".anchors", ".m.0.bias"))
        if key.endswith(".anchors") and tensor.ndim == 3 and bias is not None:
            return len(bias) // tensor.shape[1] - 5
    return None


def _learned(key: str) -> bool:
    return not key.endswith("num_batches_tracked")


def _own(given: ForeignWeights) -> bool:
    return given.metadata.get("format") == FORMAT


def _config(given: ForeignWeights, path: Path) -> TrainConfig:
    """Return the configuration in a file of ours; that of an older one of ours knows only its image size."""
    text = given.metadata.get("config")
    if not _own(given) or not isinstance(text, str) or not text:
        return TrainConfig()
    try:
        values: Any = json.loads(text)
    except ValueError as error:
        raise CheckpointError("the configuration in the weights is no JSON", place=path.name) from error
    return parse_config(values)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _architecture(given: ForeignWeights, path: Path) -> tuple[str, str]:
    """Return name and text of the model YAML: as ours carry it, as YOLOv5 does, or by the file's name."""
    text = given.metadata.get("architecture")
    if _own(given) and isinstance(text, str) and text:
        return str(given.metadata.get("architecture_name") or path.name), text
    if given.yaml is not None:
        return f"{path.stem}.yaml", yaml.safe_dump(given.yaml, sort_keys=False)
    for name in ZOO:
        if path.stem == name.rpartition("/")[2]:
            return f"{path.stem}.yaml", zoo_text(name)
    raise CheckpointError(
        "the file does not say which model its weights are of; name its model YAML with --cfg",
        place=path.name,
    )
