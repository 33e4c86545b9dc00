"""What a run is asked to do, as one checked, immutable value.

The API validates and publishes it, draws a form from its JSON schema, the worker writes it to disk and the
trainer reads it. Everything that changes the numbers is here; what changes only time or place is a hint
under `runtime` and stays out of the hash. It must not know torch, files or the service.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from yolocore.errors import ConfigError, Problem
from yolocore.spec.conflicts import conflicts
from yolocore.spec.presets import PRESETS, SCRATCH_LOW

PresetName = Literal["scratch-low", "scratch-med", "scratch-high", "no-augmentation", "VOC", "Objects365"]
OptimizerName = Literal["SGD", "Adam", "AdamW"]
ScheduleName = Literal["linear", "cosine"]
PrecisionName = Literal["auto", "fp32", "fp16", "bf16"]
RendererName = Literal["exact", "fast"]
CacheName = Literal["none", "ram", "disk"]

AUTO_BATCH = -1
LATER_FIELDS = (
    "autoanchor",
    "autobalance",
    "freeze",
    "image_weights",
    "multi_scale",
    "quad",
    "rect",
    "sync_bn",
    "world_size",
)
"""Fields younger than the first checkpoints: at their default they are no part of the hash."""


def _not_zero(value: int) -> int:
    if value == 0:
        raise PydanticCustomError("batch_of_none", "at least 1, or -1 to have it measured")
    return value


Batch = Annotated[int, AfterValidator(_not_zero)]
MAX_FROZEN = 200


def _freeze(value: Any) -> int | tuple[int, ...]:
    """Read a number K, or a list of it alone, as the first K rows; more numbers as those rows."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    known = all(type(number) is int and number >= 0 for number in numbers)
    if not known or not 1 <= len(numbers) <= MAX_FROZEN:
        raise PydanticCustomError(
            "frozen_rows",
            "a number of rows from 0, or a list of 1 to {most} row numbers",
            {"most": MAX_FROZEN},
        )
    return numbers[0] if len(numbers) == 1 else tuple(sorted(set(numbers)))


Freeze = Annotated[
    int | tuple[int, ...],
    PlainValidator(_freeze),
    PlainSerializer(lambda rows: rows if isinstance(rows, int) else list(rows)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0},
                    "minItems": 1,
                    "maxItems": MAX_FROZEN,
                },
            ]
        }
    ),
]


def _field(
    default: Any,
    title: str,
    description: str,
    *,
    group: str,
    ge: float | None = None,
    le: float | None = None,
) -> Any:
    """Declare one bounded field with what a form needs to draw it."""
    return Field(
        default=default,
        title=title,
        description=description,
        ge=ge,
        le=le,
        json_schema_extra={"group": group},
    )


def _hyp(name: str, title: str, description: str, ge: float, le: float, group: str) -> Any:
    return _field(SCRATCH_LOW[name], title, description, group=group, ge=ge, le=le)


class Section(BaseModel):
    """Common rules of every part: immutable, no unknown keys, only finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Hyperparameters(Section):
    """YOLOv5's hyperparameters under their usual names; `preset` gives the values that are not named."""

    lr0: float = _hyp("lr0", "Learning rate", "Initial rate; Adam wants about 0.001.", 1e-7, 1, "optimizer")
    lrf: float = _hyp("lrf", "Final factor", "Last rate as a factor of the first.", 0, 1, "optimizer")
    momentum: float = _hyp("momentum", "Momentum", "SGD momentum, or Adam's beta1.", 0, 0.999, "optimizer")
    weight_decay: float = _hyp("weight_decay", "Weight decay", "For a nominal batch.", 0, 0.1, "optimizer")
    warmup_epochs: float = _hyp("warmup_epochs", "Warm-up", "Epochs of warm-up.", 0, 1000, "warm-up")
    warmup_momentum: float = _hyp(
        "warmup_momentum", "Warm-up momentum", "Momentum at the first batch (SGD).", 0, 0.999, "warm-up"
    )
    warmup_bias_lr: float = _hyp(
        "warmup_bias_lr", "Warm-up bias rate", "Rate of the biases at the first batch.", 0, 1, "warm-up"
    )
    box: float = _hyp("box", "Box gain", "Weight of the box loss.", 0, 10, "loss")
    cls: float = _hyp("cls", "Class gain", "Weight of the class loss, for 80 classes.", 0, 10, "loss")
    cls_pw: float = _hyp("cls_pw", "Class positive weight", "Weight of positives.", 0.01, 10, "loss")
    obj: float = _hyp("obj", "Objectness gain", "Weight of objectness, at 640 pixels.", 0, 10, "loss")
    obj_pw: float = _hyp("obj_pw", "Objectness positive weight", "Weight of positives.", 0.01, 10, "loss")
    anchor_t: float = _hyp("anchor_t", "Anchor threshold", "Largest ratio of box to anchor.", 1, 20, "loss")
    anchors: float | None = _hyp(
        "anchors",
        "Anchors",
        "Anchors of a level, fitted to the data; empty: the model file's.",
        1,
        20,
        "loss",
    )
    fl_gamma: float = _hyp("fl_gamma", "Focal gamma", "0 switches the focal loss off.", 0, 5, "loss")
    hsv_h: float = _hyp("hsv_h", "Hue", "Largest relative change of hue.", 0, 1, "augmentation")
    hsv_s: float = _hyp("hsv_s", "Saturation", "Largest relative change of saturation.", 0, 1, "augmentation")
    hsv_v: float = _hyp("hsv_v", "Brightness", "Largest relative change of brightness.", 0, 1, "augmentation")
    degrees: float = _hyp("degrees", "Rotation", "Largest angle, in degrees.", 0, 180, "augmentation")
    translate: float = _hyp("translate", "Shift", "Largest shift, of the side.", 0, 0.9, "augmentation")
    scale: float = _hyp(
        "scale", "Scale", "Largest change of size; 0.5 is half to 1.5.", 0, 0.95, "augmentation"
    )
    shear: float = _hyp("shear", "Shear", "Largest angle, in degrees.", 0, 45, "augmentation")
    perspective: float = _hyp("perspective", "Perspective", "Largest tilt.", 0, 0.01, "augmentation")
    flipud: float = _hyp("flipud", "Flip upside down", "Probability.", 0, 1, "augmentation")
    fliplr: float = _hyp("fliplr", "Flip left to right", "Probability.", 0, 1, "augmentation")
    mosaic: float = _hyp("mosaic", "Mosaic", "Probability of joining four images.", 0, 1, "augmentation")
    mixup: float = _hyp("mixup", "Mixup", "Probability of blending two mosaics.", 0, 1, "augmentation")
    copy_paste: float = _hyp(
        "copy_paste", "Copy-paste", "Share of polygons copied, mirrored.", 0, 1, "augmentation"
    )


class Validation(Section):
    """How every epoch's validation is done; mAP depends on these, so they are part of the run."""

    conf_thres: float = _field(
        0.001, "Confidence", "Detections below it are dropped.", group="val", ge=0, le=1
    )
    iou_thres: float = _field(
        0.6, "NMS IoU", "Overlap above which a box is a repeat.", group="val", ge=0, le=1
    )
    max_det: int = _field(
        300, "Detections", "Most detections kept of an image.", group="val", ge=1, le=10_000
    )
    batch: int | None = _field(
        None,
        "Batch",
        "Images of a validation batch; empty is twice the training batch.",
        group="val",
        ge=1,
        le=4096,
    )


class Runtime(Section):
    """Wishes about time and place; the worker's settings cap them and they never change the numbers."""

    workers: int | None = _field(
        None, "Loader threads", "Empty: as set up there.", group="runtime", ge=0, le=64
    )
    cache: CacheName | None = _field(None, "Image cache", "Empty: as set up there.", group="runtime")
    compile: bool | None = _field(
        None, "Compile", "Compile the network first: minutes, meant for GPUs. Empty: no.", group="runtime"
    )
    device: str | None = Field(
        default=None,
        title="Device",
        description="cpu, cuda or cuda:N; empty: as set up there.",
        pattern=r"^(cpu|cuda(:\d{1,2})?)$",
        json_schema_extra={"group": "runtime"},
    )
    onnx: bool = _field(True, "ONNX file", "Deliver best.onnx beside best.pt.", group="runtime")


class TrainConfig(Section):
    """Everything that decides the result of a run besides its dataset, architecture and start weights."""

    epochs: int = _field(100, "Epochs", "Passes over the training images.", group="run", ge=1, le=100_000)
    imgsz: int = _field(
        640,
        "Image size",
        "Longer side in pixels; rounded up to the largest stride.",
        group="run",
        ge=32,
        le=4096,
    )
    batch: Batch = _field(
        16,
        "Batch",
        "Images of one forward pass, over all processes; -1: as many as memory holds, measured at the start.",
        group="run",
        ge=AUTO_BATCH,
        le=4096,
    )
    nominal_batch: int = _field(
        64,
        "Nominal batch",
        "Images of one step: gradients are accumulated up to it.",
        group="run",
        ge=1,
        le=4096,
    )
    seed: int = _field(0, "Seed", "Start of every random draw.", group="run", ge=0, le=2**32 - 1)
    optimizer: OptimizerName = _field("SGD", "Optimizer", "SGD is with Nesterov momentum.", group="optimizer")
    schedule: ScheduleName = _field("linear", "Schedule", "How the rate falls.", group="optimizer")
    precision: PrecisionName = _field(
        "auto", "Precision", "auto: fp16 on CUDA, fp32 on CPU.", group="optimizer"
    )
    patience: int = _field(
        100,
        "Patience",
        "Epochs without a better fitness before it ends; 0: never.",
        group="run",
        ge=0,
        le=100_000,
    )
    warmup_min_batches: int = _field(
        100, "Shortest warm-up", "Batches that warm-up lasts at least.", group="warm-up", ge=0, le=100_000
    )
    clip_norm: float = _field(
        10.0, "Clipping", "Largest L2 norm of all gradients together.", group="optimizer", ge=1e-6, le=1e6
    )
    label_smoothing: float = _field(0.0, "Label smoothing", "0 is off.", group="loss", ge=0, le=0.5)
    autobalance: bool = _field(
        False, "Balance levels", "Let the weights of the objectness levels follow their losses.", group="loss"
    )
    single_cls: bool = _field(False, "One class", "Treat all classes as one.", group="run")
    autoanchor: bool = _field(
        True,
        "Fit anchors",
        "Replace the model's anchors where they cannot match 98 % of labels.",
        group="run",
    )
    freeze: Freeze = _field(
        0,
        "Frozen rows",
        "Rows of the model that do not learn: a number K is the first K, several numbers are those rows.",
        group="run",
    )
    rect: bool = _field(
        False,
        "Rectangles",
        "Train on batches of similar proportion, unshuffled, without mosaic.",
        group="augmentation",
    )
    multi_scale: bool = _field(
        False,
        "Several sizes",
        "Draw each batch's size from 0.5 to 1.5 of the image size.",
        group="augmentation",
    )
    quad: bool = _field(
        False, "Quad", "Join or enlarge each four images to one of twice the side.", group="augmentation"
    )
    image_weights: bool = _field(
        False, "Weighted images", "Draw images of classes with a low mAP more often.", group="run"
    )
    world_size: int = _field(
        1, "Processes", "Devices that share each batch (DDP); part of the numbers.", group="run", ge=1, le=64
    )
    sync_bn: bool = _field(
        False, "SyncBatchNorm", "Batch statistics over all devices; needs CUDA.", group="run"
    )
    threads: int | None = _field(
        None, "CPU threads", "Of one operation; empty: as set up there.", group="run", ge=1, le=256
    )
    save_period: int = _field(
        0,
        "Keep epochs",
        "Keep the weights of every N-th epoch as well; 0: none.",
        group="run",
        ge=0,
        le=100_000,
    )
    augment: RendererName = _field(
        "exact", "Renderer", "Exact: warped as in YOLOv5; fast: in whole pixels.", group="augmentation"
    )
    preset: PresetName = _field(
        "scratch-low", "Preset", "Values of the hyperparameters that are not given.", group="run"
    )
    hyp: Hyperparameters = Field(default_factory=Hyperparameters, title="Hyperparameters")
    val: Validation = Field(default_factory=Validation, title="Validation")
    runtime: Runtime = Field(default_factory=Runtime, title="Runtime")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        """Lay the given hyperparameters over those of the preset, and drop the one that has no effect."""
        if not isinstance(data, dict):
            return data
        preset, given = data.get("preset", "scratch-low"), data.get("hyp", {})
        if isinstance(given, Hyperparameters):
            given = given.model_dump()
        if not isinstance(preset, str) or preset not in PRESETS or not isinstance(given, dict):
            return data  # the fields' own checks name what is wrong
        named = {key: value for key, value in given.items() if key != "iou_t"}
        return {**data, "hyp": {**PRESETS[preset], **named}}

    @model_validator(mode="after")
    def _without_conflicts(self) -> Self:
        """Refuse settings that contradict each other, naming the first pair."""
        for pointer, message in conflicts(self.model_dump()):
            raise PydanticCustomError("conflict", "{reason}", {"reason": message, "pointer": pointer})
        return self

    def config_hash(self) -> str:
        """Return the SHA-256 of everything that changes the numbers, as 64 hexadecimal digits."""
        values = self.model_dump(mode="json", exclude={"runtime", "preset"})
        for name in LATER_FIELDS:
            if getattr(self, name) == type(self).model_fields[name].default:
                del values[name]
        if self.hyp.anchors is None:
            del values["hyp"]["anchors"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def parse_config(values: Mapping[str, Any]) -> TrainConfig:
    """Check a mapping, as read from JSON or YAML, and return the configuration.

    Raises ConfigError whose `problems` name a JSON pointer, a message and the value found there.
    """
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_url=False)]
    first = problems[0]
    raise ConfigError(
        f"{len(problems)} problem(s) in the configuration; {first.pointer or '/'}: {first.message}",
        place=first.pointer,
        value=first.value,
        problems=problems,
    )


def _problem(item: Mapping[str, Any]) -> Problem:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in item["loc"])
    message = str(item["msg"])
    if item["type"] == "conflict":
        return Problem(code="CONFLICT", message=message, pointer=item["ctx"]["pointer"])
    if item["type"] == "extra_forbidden":
        message = _unknown_key(item["loc"])
    value = None if isinstance(item["input"], Mapping) else repr(item["input"])[:200]
    return Problem(code=str(item["type"]).upper(), message=message, pointer=pointer, value=value)


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    name = str(loc[-1])
    if len(loc) == 1 and name in Hyperparameters.model_fields:
        return f"unknown key; {name} is a hyperparameter and belongs under hyp"
    return "unknown key"


def preset_names() -> tuple[str, ...]:
    """Return the names of the published hyperparameter sets."""
    return get_args(PresetName)
