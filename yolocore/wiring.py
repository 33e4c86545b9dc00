"""The parts of one run, each built from its part of the configuration: loaders, loss, schedule, loop.

Beside `run.py` and what starts from weights, which carry one along, the only file that sees the whole
configuration. It must not know the order of a run's acts, nor where wishes come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from yolocore.data.place import MultiScale
from yolocore.data.rect import RectPlan, plan_rectangles
from yolocore.errors import ConfigError, DatasetError
from yolocore.loss.detection import DetectionLoss, scale_gains
from yolocore.model.layers import join_norms
from yolocore.model.network import Network
from yolocore.ops.assign import assign_targets
from yolocore.spec.config import TrainConfig
from yolocore.spec.events import TrainEvent
from yolocore.train.accord import Accord, Evaluate
from yolocore.train.amp_check import AmpCheck, check_amp, check_side, synthetic_batch
from yolocore.train.batchsize import LARGEST, BatchChoice, CpuMeter, CudaMeter, choose_batch, trial_step
from yolocore.train.checkpoint import Position
from yolocore.train.compiled import CompiledForward
from yolocore.train.distributed import Group
from yolocore.train.ema import Ema
from yolocore.train.evaluator import Evaluator
from yolocore.train.inputs import Data
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision
from yolocore.train.protocols import Output, Wish
from yolocore.train.request import RunSettings
from yolocore.train.schedule import Schedule, scaled_weight_decay
from yolocore.train.sentinel import REMEMBER_EVERY
from yolocore.train.stopping import EarlyStopping
from yolocore.train.trainer import Trainer

QUAD = 4
CPU_BATCH = 16
Forward = Callable[[torch.Tensor], Any]
AMP_CHECK_IMAGES = 2
DRAWN_BATCHES, DRAWN_IMAGES = 3, 64


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
    group: Group | None = None

    def check_amp(self, network: Network) -> AmpCheck:
        """Take a made-up batch through the network in the run's precision; nothing of it stays."""
        side = check_side(self.val_stride)
        made = synthetic_batch(AMP_CHECK_IMAGES, (side, side), **self._made_up(), device=self.device)
        return check_amp(network, self.loss(), self.precision, made.images, made.targets)

    def measure_batch(self, network: Network) -> BatchChoice:
        """Return how many images of the largest size fit into memory; raises OutOfMemoryError.

        On a CPU, where more images are no faster, YOLOv5's 16 are enough.
        """
        scales, size_hw = self._scales(), (self.imgsz, self.imgsz)
        if scales is not None:
            size_hw = scales.largest(size_hw)
        on_cpu = self.device.type == "cpu"
        copies = 2 if self.config.optimizer == "SGD" else 3

        def trial(batch: int) -> None:
            self.check()
            trial_step(
                network,
                self.loss(),
                self.precision,
                batch=batch,
                size_hw=size_hw,
                weight_copies=copies,
                **self._made_up(),
            )

        return choose_batch(
            trial,
            CpuMeter() if on_cpu else CudaMeter(self.device),
            size_hw=size_hw,
            largest=min(len(self.data.train), CPU_BATCH if on_cpu else LARGEST),
        )

    def train_loader(self, position: Position | None, *, rank: int = 0) -> TrainLoader:
        """Return the endless loader of one process's training batches, from a resumed run's place on."""
        config, hyp = self.config, self.config.hyp
        store = self._store(self.data.train, area=False)
        augment = AugmentConfig(**{name: getattr(hyp, name) for name in AugmentConfig.__dataclass_fields__})
        return TrainLoader(
            TrainSamples(
                self.data.train,
                store,
                self.imgsz,
                augment,
                config.seed,
                self._rectangles(),
                renderer=config.augment,
            ),
            self.batch,
            seed=config.seed,
            num_epochs=config.epochs,
            start_epoch=position.epoch if position else 0,
            start_batch=position.batch if position else 0,
            num_threads=self.settings.loader_threads,
            finish_batch=self._match,
            pin_memory=self.device.type == "cuda",
            scales=self._scales(),
            quad=config.quad,
            weigh=config.image_weights,
            rank=rank,
            world_size=config.world_size,
        )

    def first_batches(self) -> Iterator[Batch]:
        """Yield the first batches of a run anew, as they were trained on: three, or of large ones fewer.

        An image that is no longer there, which a cache may have made up for, ends them with a warning.
        """
        settings = replace(self.settings, cache="none", loader_threads=0)
        with replace(self, settings=settings).train_loader(None) as loader:
            if self.config.image_weights:
                loader.set_class_maps([0.0] * len(self.data.names))
            for index in range(min(max(DRAWN_IMAGES // self.batch, 1), DRAWN_BATCHES, len(loader))):
                try:
                    yield loader.batch_at(0, index)
                except DatasetError as error:
                    self.warn("NO_PICTURE", f"batches of training are not drawn: {error.message}")
                    return

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
        evaluator: Evaluator | None,
        frozen: Sequence[nn.Module],
        output: Output,
        emit: Callable[[TrainEvent], None],
        poll: Callable[[], Wish | None],
    ) -> Trainer:
        """Return the loop with everything it holds; it only has no `evaluator` on ranks other than 0."""
        config = self.config
        loss = self.loss(factor=config.world_size * (QUAD if config.quad else 1))
        evaluate: Evaluate | None = evaluator
        forward: Forward | None = None
        if self.group is not None:
            accord = Accord(
                self.group,
                loss=loss,
                balance_moves=config.autobalance,
                poll=poll,
                evaluate=evaluator,
                emit=emit,
            )
            evaluate, poll, emit = accord.evaluate, accord.poll, accord.emit
            side = check_side(self.val_stride)
            forward = accord.forward(network, torch.zeros(2, 3, side, side, device=self.group.device))
        forward = self._forward(network, forward, emit)
        assert evaluate is not None, "one process validates itself"
        trainer = Trainer(
            network=network,
            ema=Ema(network),
            optimizer=self.optimizer(network),
            precision=self.precision,
            schedule=self.schedule(len(loader)),
            loss=loss,
            loader=loader,
            batches_per_epoch=len(loader),
            epochs=config.epochs,
            clip_norm=config.clip_norm,
            stopping=EarlyStopping(config.patience),
            evaluate=evaluate,
            output=output,
            emit=emit,
            poll=poll,
            checkpoint_every_s=self.settings.checkpoint_every_s,
            forward=forward,
            remember_every=0 if self.group else REMEMBER_EVERY,  # ranks cannot go back one by one
            frozen=frozen,
            weigh=loader.set_class_maps if config.image_weights else None,
        )
        if config.image_weights:
            trainer.class_maps = [0.0] * len(self.data.names)
            loader.set_class_maps(trainer.class_maps)
        if evaluator is not None:
            evaluator.check = lambda: self._check_alone(trainer)
        return trainer

    def _forward(
        self, network: Network, shared: Forward | None, emit: Callable[[TrainEvent], None]
    ) -> Forward | None:
        """Return what trains in place of the network's own forward, if anything does."""
        if not self.settings.compile:
            if self.device.type == "cpu":
                join_norms(network)
            return shared
        if shared is not None:
            self.warn(
                "COMPILE_OFF", "several processes share a network uncompiled: their exchange breaks it up"
            )
            return shared
        return CompiledForward(network, emit, backend=self.settings.compile_backend)

    def _check_alone(self, trainer: Trainer) -> None:
        """Raise Interrupted if there is a wish, without asking other ranks: they do not validate."""
        trainer.system.tick()
        self.check()

    def _made_up(self) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "anchors_grid": self.anchors_grid,
            "num_classes": len(self.data.names),
            "anchor_t": self.config.hyp.anchor_t,
        }

    def _rectangles(self) -> RectPlan | None:
        """Return the order and shapes of rectangular training, whose batches are padded to whole strides."""
        if not self.config.rect:
            return None
        sizes_hw = [(sample.height, sample.width) for sample in self.data.train]
        return plan_rectangles(
            sizes_hw, batch_size=self.batch, imgsz=self.imgsz, stride=self.val_stride, pad=0.0
        )

    def _scales(self) -> MultiScale | None:
        """Return the sizes of multi-scale training; raises ConfigError where images are too small."""
        if not self.config.multi_scale:
            return None
        if self.imgsz < 2 * self.val_stride:
            raise ConfigError(
                f"half the image size is smaller than what this model's rows need, {self.val_stride} pixels",
                place="/multi_scale",
                value=str(self.imgsz),
            )
        return MultiScale(self.imgsz, self.val_stride)

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
        height, width = batch.input_hw
        shapes = [(height // stride, width // stride) for stride in self.strides]
        matches = assign_targets(
            batch.targets.numpy(), self.anchors_grid, shapes, float(np.float32(self.config.hyp.anchor_t))
        )
        return replace(batch, matches=matches)
