"""The parts of one run, each built from its part of the configuration: loaders, loss, schedule, loop.

Beside `run.py` the only file that sees the whole configuration. It must not know the order of a run's acts,
nor where wishes come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import Batch
from yolocore.data.dataset import TrainSamples, ValSamples
from yolocore.data.files import Sample
from yolocore.data.images import ImageStore
from yolocore.data.loader import TrainLoader, ValLoader
from yolocore.loss.detection import DetectionLoss, scale_gains
from yolocore.model.network import Network
from yolocore.ops.assign import assign_targets
from yolocore.spec.config import TrainConfig
from yolocore.spec.events import TrainEvent
from yolocore.train.checkpoint import Position
from yolocore.train.ema import Ema
from yolocore.train.evaluator import Evaluator
from yolocore.train.inputs import Data
from yolocore.train.optim import build_optimizer
from yolocore.train.outputs import RunFolder
from yolocore.train.precision import Precision
from yolocore.train.protocols import Wish
from yolocore.train.request import RunSettings
from yolocore.train.schedule import Schedule, scaled_weight_decay
from yolocore.train.stopping import EarlyStopping
from yolocore.train.trainer import Trainer

QUAD = 4


@dataclass(frozen=True)
class Wiring:
    """What a run has settled before its parts are built; each method builds one of them.

    `batch` is the batch over all processes, measured if the configuration leaves it open; `anchors_grid`
    (levels, anchors, 2) are the anchors trained with, in cells; `val_stride` and `strides` in pixels.
    """

    config: TrainConfig
    settings: RunSettings
    device: torch.device
    precision: Precision
    data: Data
    imgsz: int
    strides: list[int]
    val_stride: int
    batch: int
    anchors_grid: np.ndarray[Any, np.dtype[np.float32]]
    warn: Callable[[str, str], None]
    check: Callable[[], None]

    def train_loader(self, position: Position | None) -> TrainLoader:
        """Return the endless loader of training batches, from a resumed run's place on."""
        config, hyp = self.config, self.config.hyp
        store = self._store(self.data.train, area=False)
        augment = AugmentConfig(**{name: getattr(hyp, name) for name in AugmentConfig.__dataclass_fields__})
        return TrainLoader(
            TrainSamples(self.data.train, store, self.imgsz, augment, config.seed),
            self.batch,
            seed=config.seed,
            num_epochs=config.epochs,
            start_epoch=position.epoch if position else 0,
            start_batch=position.batch if position else 0,
            num_threads=self.settings.loader_threads,
            finish_batch=self._match,
            pin_memory=self.device.type == "cuda",
        )

    def val_loader(self) -> ValLoader:
        """Return the loader of validation batches: rectangles, letterboxed, never enlarged."""
        samples = ValSamples(
            self.data.val,
            self._store(self.data.val, area=True),
            self.imgsz,
            self.config.val.batch or 2 * self.batch // self.config.world_size,
            stride=self.val_stride,
        )
        return ValLoader(
            samples,
            num_threads=self.settings.loader_threads,
            finish_batch=self._match,
            pin_memory=self.device.type == "cuda",
        )

    def loss(self, *, factor: float = 1.0) -> DetectionLoss:
        """Return the loss; `factor` multiplies what is back-propagated."""
        config, hyp, num_classes = self.config, self.config.hyp, len(self.data.names)
        gains = scale_gains(hyp.box, hyp.obj, hyp.cls, len(self.strides), num_classes, self.imgsz)
        return DetectionLoss(
            num_classes=num_classes,
            strides=self.strides,
            box=gains.box,
            obj=gains.obj,
            cls=gains.cls,
            cls_pw=hyp.cls_pw,
            obj_pw=hyp.obj_pw,
            label_smoothing=config.label_smoothing,
            fl_gamma=hyp.fl_gamma,
            autobalance=config.autobalance,
            factor=factor,
        )

    def schedule(self, batches_per_epoch: int) -> Schedule:
        """Return rates, momentum and accumulation of the whole run."""
        config, hyp = self.config, self.config.hyp
        return Schedule(
            epochs=config.epochs,
            batches_per_epoch=batches_per_epoch,
            batch=self.batch,
            nominal_batch=config.nominal_batch,
            kind=config.schedule,
            lr0=hyp.lr0,
            lrf=hyp.lrf,
            momentum=hyp.momentum,
            warmup_epochs=hyp.warmup_epochs,
            warmup_min_batches=config.warmup_min_batches,
            warmup_momentum=hyp.warmup_momentum,
            warmup_bias_lr=hyp.warmup_bias_lr,
        )

    def evaluator(self) -> Evaluator:
        """Return what validates an average; its loss never moves the balance of the training loss."""
        config = self.config
        return Evaluator(
            batches=self.val_loader(),
            loss=self.loss(),
            num_classes=len(self.data.names),
            conf_thres=config.val.conf_thres,
            iou_thres=config.val.iou_thres,
            max_det=config.val.max_det,
            single_class=config.single_cls,
            precision=self.precision,
            check=self.check,
        )

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """Return the optimizer over all parameters, frozen ones included: they get no gradient."""
        config, hyp = self.config, self.config.hyp
        return build_optimizer(
            network,
            name=config.optimizer,
            lr=hyp.lr0,
            momentum=hyp.momentum,
            weight_decay=scaled_weight_decay(hyp.weight_decay, self.batch, config.nominal_batch),
        )

    def trainer(
        self,
        network: Network,
        *,
        loader: TrainLoader,
        evaluator: Evaluator,
        frozen: Sequence[nn.Module],
        output: RunFolder,
        emit: Callable[[TrainEvent], None],
        poll: Callable[[], Wish | None],
    ) -> Trainer:
        """Return the loop with everything it holds."""
        config = self.config
        trainer = Trainer(
            network=network,
            ema=Ema(network),
            optimizer=self.optimizer(network),
            precision=self.precision,
            schedule=self.schedule(len(loader)),
            loss=self.loss(factor=config.world_size * (QUAD if config.quad else 1)),
            loader=loader,
            batches_per_epoch=len(loader),
            epochs=config.epochs,
            clip_norm=config.clip_norm,
            stopping=EarlyStopping(config.patience),
            evaluate=evaluator,
            output=output,
            emit=emit,
            poll=poll,
            checkpoint_every_s=self.settings.checkpoint_every_s,
            frozen=frozen,
        )
        evaluator.check = trainer.check
        return trainer

    def _store(self, samples: Sequence[Sample], *, area: bool) -> ImageStore:
        return ImageStore(
            samples,
            self.imgsz,
            area=area,
            cache=self.settings.cache,
            cache_dir=self.settings.cache_dir,
            num_threads=max(self.settings.loader_threads, 1),
            warn=lambda message: self.warn("CACHE", message),
            progress=lambda done, total: self.check(),
        )

    def _match(self, batch: Batch) -> Batch:
        """Add the cells that answer for the targets; runs in the loader's threads."""
        height, width = batch.images.shape[2:]
        shapes = [(height // stride, width // stride) for stride in self.strides]
        matches = assign_targets(
            batch.targets.numpy(), self.anchors_grid, shapes, float(np.float32(self.config.hyp.anchor_t))
        )
        return replace(batch, matches=matches)
