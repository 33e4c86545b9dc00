"""The wiring of one run: configuration, data and architecture in; trained weights, events and files out.

The only file that sees the whole configuration; everything below takes plain arguments. It must not know
the service, nor how events travel or where wishes come from.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch

from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import Batch
from yolocore.data.dataset import TrainSamples, ValSamples
from yolocore.data.files import Sample, fingerprint, sizes_px
from yolocore.data.images import ImageStore
from yolocore.data.loader import TrainLoader, ValLoader
from yolocore.errors import CheckpointError
from yolocore.loss.detection import DetectionLoss, scale_gains
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.ops.anchors import anchor_fit
from yolocore.ops.assign import assign_targets
from yolocore.spec.events import PhaseChange, Resume, Start, TrainEvent, Warned
from yolocore.spec.plan import Plan
from yolocore.train.checkpoint import Snapshot, load_checkpoint
from yolocore.train.ema import Ema
from yolocore.train.evaluator import Evaluator
from yolocore.train.export import export_figures, export_pictures, export_weights, figures, judge_best
from yolocore.train.failures import naming_failures
from yolocore.train.inputs import (
    Data,
    plan_run,
    read_folder,
    read_manifest,
    start_from,
    usable_device,
    val_stride,
)
from yolocore.train.numerics import numerics
from yolocore.train.optim import build_optimizer
from yolocore.train.outputs import RunFolder, WeightsCard
from yolocore.train.precision import Precision, resolve_precision
from yolocore.train.protocols import Interrupted, Wish
from yolocore.train.request import Control, RunRequest, RunResult, RunSettings
from yolocore.train.schedule import Schedule, scaled_weight_decay
from yolocore.train.stopping import EarlyStopping
from yolocore.train.trainer import Trainer

CIRCUMSTANCES = ("precision", "threads", "device", "torch", "numpy", "opencv", "machine", "processor")
Emit = Callable[[TrainEvent], None]


def train(request: RunRequest, *, emit: Emit, control: Control) -> RunResult:
    """Do one run from start, or from a checkpoint, to its end or to a wish.

    Raises CoreError for what the user or the machine got wrong; events up to then have been emitted.
    """
    settings = request.settings.within(request.config.runtime)
    device = usable_device(settings.device)
    threads = request.config.threads or settings.threads
    with naming_failures(), numerics(threads, device) as used_threads:
        try:
            return _Run(request, settings, device, used_threads, emit, control).go()
        except Interrupted as interruption:  # before the loop began, or in the last validation
            return RunResult("stopped", interruption.wish, None, None, [])


class _Run:
    """The parts of one run, built in the order in which they need each other."""

    def __init__(
        self,
        request: RunRequest,
        settings: RunSettings,
        device: torch.device,
        threads: int,
        emit: Emit,
        control: Control,
    ) -> None:
        self.request = request
        self.config = request.config
        self.settings = settings
        self.device = device
        self.threads = threads
        self.emit = emit
        self.control = control
        self.precision = Precision(resolve_precision(self.config.precision, device), device)

    def go(self) -> RunResult:
        config = self.config
        snapshot = load_checkpoint(self.request.resume) if self.request.resume else None
        if snapshot is not None and not self.request.announced:
            self.emit(Resume(epoch=snapshot.position.epoch, batch=snapshot.position.batch))
        self.data = self._read_data()
        plan = plan_run(
            self.request.architecture_text,
            name=self.request.architecture_name,
            num_classes=len(self.data.names),
            imgsz=config.imgsz,
        )
        self.imgsz, self.strides = plan.imgsz[0], [int(stride) for stride in plan.strides]
        self.val_stride = val_stride(plan)
        network = build_network(plan, seed=config.seed).to(self.device)
        network = network.to(memory_format=torch.channels_last)
        if snapshot is None and self.request.weights is not None:
            start_from(network, self.request.weights, self.emit)
        self.anchors_grid = network.head.anchors.detach().float().cpu().numpy()
        identity = self._identity()
        if snapshot is not None:
            self._check_resumed(snapshot, identity)
        output = RunFolder(
            self.request.folder,
            emit=self.emit,
            card=self._card(plan),
            identity=identity,
            save_period=config.save_period,
            keep_checkpoints=self.settings.keep_checkpoints,
        )
        with closing(self._train_loader(snapshot)) as loader:
            trainer, evaluator = self._trainer(network, loader, output)
            if snapshot is not None and self.request.resume is not None:
                trainer.restore(snapshot)
                output.go_on_from(self.request.resume)
            else:
                self._announce(plan, loader)
            wish = trainer.run()
        return self._finish(trainer, evaluator, output, wish)

    # ---- parts

    def _read_data(self) -> Data:
        request, single_cls = self.request, self.config.single_cls
        if request.manifest is not None:
            assert request.images_root is not None, "a manifest comes with the root of its images"
            return read_manifest(
                request.manifest, request.images_root, single_cls=single_cls, warn=self._warn
            )
        assert request.data_yaml is not None, "a run needs data"
        return read_folder(request.data_yaml, single_cls=single_cls, warn=self._warn)

    def _train_loader(self, snapshot: Snapshot | None) -> TrainLoader:
        config, hyp = self.config, self.config.hyp
        store = self._store(self.data.train, area=False)
        augment = AugmentConfig(**{name: getattr(hyp, name) for name in AugmentConfig.__dataclass_fields__})
        position = snapshot.position if snapshot else None
        return TrainLoader(
            TrainSamples(self.data.train, store, self.imgsz, augment, config.seed),
            config.batch,
            seed=config.seed,
            num_epochs=config.epochs,
            start_epoch=position.epoch if position else 0,
            start_batch=position.batch if position else 0,
            num_threads=self.settings.loader_threads,
            finish_batch=self._match,
            pin_memory=self.device.type == "cuda",
        )

    def _val_loader(self) -> ValLoader:
        samples = ValSamples(
            self.data.val,
            self._store(self.data.val, area=True),
            self.imgsz,
            self.config.val.batch or 2 * self.config.batch,
            stride=self.val_stride,
        )
        return ValLoader(
            samples,
            num_threads=self.settings.loader_threads,
            finish_batch=self._match,
            pin_memory=self.device.type == "cuda",
        )

    def _store(self, samples: Sequence[Sample], *, area: bool) -> ImageStore:
        return ImageStore(
            samples,
            self.imgsz,
            area=area,
            cache=self.settings.cache,
            cache_dir=self.settings.cache_dir,
            num_threads=max(self.settings.loader_threads, 1),
            warn=lambda message: self._warn("CACHE", message),
            progress=lambda done, total: self._check(),
        )

    def _match(self, batch: Batch) -> Batch:
        """Add the cells that answer for the targets; runs in the loader's threads."""
        height, width = batch.images.shape[2:]
        shapes = [(height // stride, width // stride) for stride in self.strides]
        matches = assign_targets(
            batch.targets.numpy(), self.anchors_grid, shapes, float(np.float32(self.config.hyp.anchor_t))
        )
        return replace(batch, matches=matches)

    def _loss(self) -> DetectionLoss:
        hyp, num_classes = self.config.hyp, len(self.data.names)
        gains = scale_gains(hyp.box, hyp.obj, hyp.cls, len(self.strides), num_classes, self.imgsz)
        return DetectionLoss(
            num_classes=num_classes,
            strides=self.strides,
            box=gains.box,
            obj=gains.obj,
            cls=gains.cls,
            cls_pw=hyp.cls_pw,
            obj_pw=hyp.obj_pw,
            label_smoothing=self.config.label_smoothing,
            fl_gamma=hyp.fl_gamma,
        )

    def _schedule(self, batches_per_epoch: int) -> Schedule:
        config, hyp = self.config, self.config.hyp
        return Schedule(
            epochs=config.epochs,
            batches_per_epoch=batches_per_epoch,
            batch=config.batch,
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

    def _trainer(self, network: Network, loader: TrainLoader, output: RunFolder) -> tuple[Trainer, Evaluator]:
        config, hyp = self.config, self.config.hyp
        loss = self._loss()
        evaluator = Evaluator(
            batches=self._val_loader(),
            loss=loss,
            num_classes=len(self.data.names),
            conf_thres=config.val.conf_thres,
            iou_thres=config.val.iou_thres,
            max_det=config.val.max_det,
            single_class=config.single_cls,
            precision=self.precision,
            check=self._check,
        )
        decay = scaled_weight_decay(hyp.weight_decay, config.batch, config.nominal_batch)
        trainer = Trainer(
            network=network,
            ema=Ema(network),
            optimizer=build_optimizer(
                network, name=config.optimizer, lr=hyp.lr0, momentum=hyp.momentum, weight_decay=decay
            ),
            precision=self.precision,
            schedule=self._schedule(len(loader)),
            loss=loss,
            loader=loader,
            batches_per_epoch=len(loader),
            epochs=config.epochs,
            clip_norm=config.clip_norm,
            stopping=EarlyStopping(config.patience),
            evaluate=evaluator,
            output=output,
            emit=self.emit,
            poll=self.control.poll,
            checkpoint_every_s=self.settings.checkpoint_every_s,
        )
        evaluator.check = trainer.check
        return trainer, evaluator

    # ---- beginning and end

    def _announce(self, plan: Plan, loader: TrainLoader) -> None:
        config = self.config
        self.emit(
            Start(
                epochs=config.epochs,
                batches_per_epoch=len(loader),
                batch=config.batch,
                nominal_batch=config.nominal_batch,
                imgsz=self.imgsz,
                device=str(self.device),
                precision=self.precision.name,
                threads=self.threads,
                num_train_images=len(self.data.train),
                num_val_images=len(self.data.val),
                classes=self.data.names,
                num_parameters=plan.num_parameters,
                config_hash=config.config_hash(),
            )
        )
        anchors = np.array(plan.anchors_px, dtype=np.float32).reshape(-1, 2)
        fit = anchor_fit(sizes_px(self.data.train, self.imgsz), anchors, config.hyp.anchor_t)
        if not fit.is_good:
            self._warn(
                "ANCHORS_FIT_BADLY",
                f"the model's anchors can match {fit.recall:.1%} of the labels at {self.imgsz} pixels; "
                "the rest cannot be learned: change the anchors or the image size",
            )

    def _finish(
        self, trainer: Trainer, evaluator: Evaluator, output: RunFolder, wish: Wish | None
    ) -> RunResult:
        """Deliver all at a normal end, the weights alone at a stop, nothing at other wishes."""
        if wish not in (None, "stop"):
            return RunResult("stopped", wish, trainer.best, None, [])
        self.emit(PhaseChange(phase="exporting"))
        best, average = trainer.best, trainer.ema.network
        artifacts = export_weights(
            output,
            rows=trainer.rows,
            best=trainer.best_weights,
            best_epoch=best.epoch if best else None,
            last=average.state_dict(),
        )
        if wish == "stop" or trainer.best_weights is None:
            return RunResult("stopped" if wish else "succeeded", wish, best, _row_metrics(trainer), artifacts)
        try:
            result = judge_best(average, trainer.best_weights, evaluator)
        except Interrupted as interruption:
            if interruption.wish != "stop":
                raise
            return RunResult("succeeded", None, best, _row_metrics(trainer), artifacts)
        metrics = figures(result, self.data.names)
        artifacts.append(export_figures(output, metrics))
        if self.settings.pictures:
            artifacts += export_pictures(output, result=result, rows=trainer.rows, names=self.data.names)
        return RunResult("succeeded", None, best, metrics, artifacts)

    def _identity(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "config_hash": self.config.config_hash(),
            "architecture": self.request.architecture_text,
            "architecture_name": self.request.architecture_name,
            "classes": self.data.names,
            "dataset": fingerprint([*self.data.train, *self.data.val]),
            "imgsz": self.imgsz,
            "anchors_grid": self.anchors_grid.tolist(),
            "precision": self.precision.name,
            "threads": self.threads,
            "device": str(self.device),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "machine": platform.machine(),
            "processor": torch.backends.cpu.get_cpu_capability(),
        }

    def _check_resumed(self, snapshot: Snapshot, identity: dict[str, Any]) -> None:
        """Refuse a checkpoint of another run; warn where equal numbers can no longer be promised.

        What the checkpoint says nothing about is taken to be the same.
        """
        before = {**identity, **snapshot.identity}
        for name in ("config_hash", "architecture", "classes", "dataset"):
            if before[name] != identity[name]:
                raise CheckpointError("the checkpoint is of another run", place=name)
        for name in CIRCUMSTANCES:
            if before[name] != identity[name]:
                self._warn(
                    "RESUME_DIFFERS",
                    f"{name} was {before[name]}, is {identity[name]}; the numbers may differ",
                )

    def _card(self, plan: Plan) -> WeightsCard:
        return WeightsCard(
            names=self.data.names,
            strides=[float(stride) for stride in plan.strides],
            anchors_px=[[list(pair) for pair in level] for level in plan.anchors_px],
            architecture=self.request.architecture_text,
            architecture_name=self.request.architecture_name,
            imgsz=self.imgsz,
        )

    def _warn(self, code: str, message: str) -> None:
        self.emit(Warned(code=code, message=message))

    def _check(self) -> None:
        wish = self.control.poll()
        if wish is not None:
            raise Interrupted(wish)


def _row_metrics(trainer: Trainer) -> dict[str, Any] | None:
    """Return the figures of the best epoch's row, None if no epoch was finished."""
    for row in trainer.rows:
        if trainer.best is not None and row.epoch == trainer.best.epoch:
            names = ("precision", "recall", "map50", "map50_95", "fitness")
            return {name: getattr(row, name) for name in names}
    return None
