"""The published hyperparameter sets of YOLOv5, so that a job may name one and change a few values.

Plain numbers only; `config.py` says what each of them means and what bounds it has. `anchors` None keeps the
model file's; the sets named VOC and Objects365 ask for anchors fitted to the data.
"""

from __future__ import annotations

from typing import Final

SCRATCH_LOW: Final[dict[str, float | None]] = {
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
    "box": 0.05,
    "cls": 0.5,
    "cls_pw": 1.0,
    "obj": 1.0,
    "obj_pw": 1.0,
    "anchor_t": 4.0,
    "anchors": None,
    "fl_gamma": 0.0,
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "degrees": 0.0,
    "translate": 0.1,
    "scale": 0.5,
    "shear": 0.0,
    "perspective": 0.0,
    "flipud": 0.0,
    "fliplr": 0.5,
    "mosaic": 1.0,
    "mixup": 0.0,
    "copy_paste": 0.0,
}

SCRATCH_MED: Final = {**SCRATCH_LOW, "lrf": 0.1, "cls": 0.3, "obj": 0.7, "scale": 0.9, "mixup": 0.1}

NO_AUGMENTATION: Final = {
    **SCRATCH_LOW,
    **{"lrf": 0.1, "cls": 0.3, "obj": 0.7},
    **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "mosaic"), 0.0),
}

VOC: Final = {
    **SCRATCH_LOW,
    "lr0": 0.00334,
    "lrf": 0.15135,
    "momentum": 0.74832,
    "weight_decay": 0.00025,
    "warmup_epochs": 3.3835,
    "warmup_momentum": 0.59462,
    "warmup_bias_lr": 0.18657,
    "box": 0.02,
    "cls": 0.21638,
    "cls_pw": 0.5,
    "obj": 0.51728,
    "obj_pw": 0.67198,
    "anchor_t": 3.3744,
    "anchors": 3.412,
    "hsv_h": 0.01041,
    "hsv_s": 0.54703,
    "hsv_v": 0.27739,
    "translate": 0.04591,
    "scale": 0.75544,
    "mosaic": 0.85834,
    "mixup": 0.04266,
}

OBJECTS365: Final = {
    **SCRATCH_LOW,
    "lr0": 0.00258,
    "lrf": 0.17,
    "momentum": 0.779,
    "weight_decay": 0.00058,
    "warmup_epochs": 1.33,
    "warmup_momentum": 0.86,
    "warmup_bias_lr": 0.0711,
    "box": 0.0539,
    "cls": 0.299,
    "cls_pw": 0.825,
    "obj": 0.632,
    "anchor_t": 3.44,
    "anchors": 3.2,
    "hsv_h": 0.0188,
    "hsv_s": 0.704,
    "hsv_v": 0.36,
    "translate": 0.0902,
    "scale": 0.491,
}

PRESETS: Final[dict[str, dict[str, float | None]]] = {
    "scratch-low": SCRATCH_LOW,
    "scratch-med": SCRATCH_MED,
    "scratch-high": {**SCRATCH_MED, "copy_paste": 0.1},
    "no-augmentation": NO_AUGMENTATION,
    "VOC": VOC,
    "Objects365": OBJECTS365,
}
