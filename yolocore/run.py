"""The wiring of one run: configuration, data and architecture in; trained weights, events and files out.

The only file that sees the whole configuration; everything below takes plain arguments. It must not know
the service, nor how events travel or where wishes come from.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import closing
from typing import Any

import cv2
import numpy as np
import torch

from yolocore.data.files import fingerprint, sizes_px
from yolocore.data.loader import TrainLoader
from yolocore.errors import CheckpointError
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.ops.anchors import anchor_fit
from yolocore.spec.events import PhaseChange, Resume, Start, TrainEvent, Warned
from yolocore.spec.plan import Plan
from yolocore.train.checkpoint import Snapshot, load_checkpoint
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
from yolocore.train.outputs import RunFolder, WeightsCard
from yolocore.train.precision import Precision, resolve_precision
from yolocore.train.protocols import Interrupted, Wish
from yolocore.train.request import Control, RunRequest, RunResult, RunSettings
from yolocore.train.trainer import Trainer
from yolocore.wiring import Wiring

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
        network = build_network(plan, seed=config.seed).to(self.device)
        network = network.to(memory_format=torch.channels_last)
        if snapshot is None and self.request.weights is not None:
            start_from(network, self.request.weights, self.emit)
        self.wiring = wiring = self._settle(plan, network)
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
        with closing(wiring.train_loader(snapshot.position if snapshot else None)) as loader:
            evaluator = wiring.evaluator()
            trainer = wiring.trainer(
                network,
                loader=loader,
                evaluator=evaluator,
                frozen=[],
                output=output,
                emit=self.emit,
                poll=self.control.poll,
            )
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

    def _settle(self, plan: Plan, network: Network) -> Wiring:
        """Settle what the configuration leaves open, and return what all parts are built from."""
        return Wiring(
            config=self.config,
            settings=self.settings,
            device=self.device,
            precision=self.precision,
            data=self.data,
            imgsz=plan.imgsz[0],
            strides=[int(stride) for stride in plan.strides],
            val_stride=val_stride(plan),
            batch=self.config.batch,
            anchors_grid=network.head.anchors.detach().float().cpu().numpy(),
            warn=self._warn,
            check=self._check,
        )

    # ---- beginning and end

    def _announce(self, plan: Plan, loader: TrainLoader) -> None:
        config = self.config
        self.emit(
            Start(
                epochs=config.epochs,
                batches_per_epoch=len(loader),
                batch=self.wiring.batch,
                nominal_batch=config.nominal_batch,
                imgsz=self.wiring.imgsz,
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
        fit = anchor_fit(sizes_px(self.data.train, self.wiring.imgsz), anchors, config.hyp.anchor_t)
        if not fit.is_good:
            self._warn(
                "ANCHORS_FIT_BADLY",
                f"the model's anchors can match {fit.recall:.1%} of the labels at {self.wiring.imgsz} "
                "pixels; the rest cannot be learned: change the anchors or the image size",
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
            "batch": self.wiring.batch,
            "imgsz": self.wiring.imgsz,
            "anchors_grid": self.wiring.anchors_grid.tolist(),
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
            imgsz=self.wiring.imgsz,
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
