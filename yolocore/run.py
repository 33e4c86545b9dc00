"""The wiring of one run: configuration, data and architecture in; trained weights, events and files out.

The only file that sees the whole configuration; everything below takes plain arguments. It must not know
the service, nor how events travel or where wishes come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from yolocore.data.files import fingerprint, sizes_px
from yolocore.data.loader import TrainLoader
from yolocore.errors import NonFiniteError, OutOfMemoryError
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.config import AUTO_BATCH
from yolocore.spec.events import Log, PhaseChange, Resume, Start, TrainEvent, Warned
from yolocore.spec.fit import frozen_rows
from yolocore.spec.plan import Plan
from yolocore.train.accord import NoOutput, tell_nothing
from yolocore.train.anchors import anchor_events, choose_anchors
from yolocore.train.checkpoint import Snapshot, load_checkpoint
from yolocore.train.deliver import export_onnx
from yolocore.train.distributed import Group, check_devices, check_sync_bn, convert_sync_batchnorm
from yolocore.train.evaluator import Evaluator
from yolocore.train.export import (
    export_figures,
    export_pictures,
    export_weights,
    figures,
    judge_best,
    row_metrics,
    written_detections,
)
from yolocore.train.failures import naming_failures
from yolocore.train.freeze import freeze
from yolocore.train.inputs import (
    Data,
    plan_run,
    read_folder,
    read_manifest,
    start_from,
    usable_device,
    val_stride,
)
from yolocore.train.numerics import environment, numerics
from yolocore.train.outputs import RunFolder, WeightsCard
from yolocore.train.precision import Precision, resolve_precision
from yolocore.train.processes import lead
from yolocore.train.protocols import Interrupted, Wish
from yolocore.train.request import Control, NoControl, RunRequest, RunResult, RunSettings
from yolocore.train.resume import check_resumed, patience_anew
from yolocore.train.trainer import Trainer
from yolocore.wiring import QUAD, Wiring

Emit = Callable[[TrainEvent], None]


def train(request: RunRequest, *, emit: Emit, control: Control) -> RunResult:
    """Do one run from start, or from a checkpoint, to its end or to a wish.

    Several processes train one run if the configuration says so; this one is rank 0 then, and the only one
    that tells, asks and writes. Raises CoreError for what the user or the machine got wrong, whichever rank
    met it; events up to then have been emitted.
    """
    settings = _settings(request)
    device = usable_device(settings.device)
    threads = request.config.threads or settings.threads
    if threads is None and device.type == "cpu" and request.config.world_size > 1:
        threads = max(torch.get_num_threads() // request.config.world_size, 1)
    with naming_failures(), numerics(threads, device) as used_threads:
        try:
            with _company(request, device, used_threads) as group:
                return _Run(request, settings, device, used_threads, emit, control, group).go()
        except Interrupted as interruption:  # before the loop began, or in the last validation
            return RunResult("stopped", interruption.wish, None, None, [])


@contextmanager
def _company(request: RunRequest, device: torch.device, threads: int) -> Iterator[Group | None]:
    """Have the other ranks of a run beside this process, and yield the group; None if it is alone."""
    world_size = request.config.world_size
    if world_size == 1:
        yield None
        return
    check_devices(device.type, world_size)
    if request.config.sync_bn:
        check_sync_bn(device, world_size)
    with lead(world_size, _follow, (request, threads), device=device.type) as group:
        yield group


def _follow(group: Group, request: RunRequest, threads: int) -> None:
    """Do another rank's part of a run: all of it but to tell, ask, validate and write."""
    settings = replace(_settings(request), checkpoint_every_s=math.inf)
    with naming_failures(), numerics(threads, group.device) as used_threads:
        _Run(request, settings, group.device, used_threads, tell_nothing, NoControl(), group).go()


def _settings(request: RunRequest) -> RunSettings:
    """Return the settings within the run's hints; several processes map one file, not a copy each."""
    settings = request.settings.within(request.config.runtime)
    if request.config.world_size > 1 and settings.cache == "ram" and settings.cache_dir is not None:
        return replace(settings, cache="disk")
    return settings


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
        group: Group | None,
    ) -> None:
        self.request = request
        self.config = request.config
        self.settings = settings
        self.device = device
        self.threads = threads
        self.emit = emit
        self.control = control
        self.group = group
        self.is_first = group is None or group.rank == 0
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
            anchors=None if config.hyp.anchors is None else round(config.hyp.anchors),
        )
        network = build_network(plan, seed=config.seed).to(self.device)
        network = network.to(memory_format=torch.channels_last)
        if config.sync_bn:
            network = convert_sync_batchnorm(network)  # before its norms are frozen
        if snapshot is None and self.request.weights is not None:
            start_from(network, self.request.weights, self.emit)
        self._settle_anchors(plan, network, snapshot)
        frozen = freeze(network, frozen_rows(config.freeze, len(network.model)))
        self.wiring = wiring = self._settle(plan, network, snapshot)
        identity = self._identity()
        longer = snapshot is not None and check_resumed(snapshot, identity, self._warn)
        position, rank = snapshot.position if snapshot else None, self.group.rank if self.group else 0
        with ExitStack() as stack:
            loader = stack.enter_context(closing(wiring.train_loader(position, rank=rank)))
            output = self._output(plan, identity)  # nothing is on disk before all is known to fit
            if isinstance(output, RunFolder):
                stack.enter_context(output)
            evaluator = wiring.evaluator() if self.is_first else None
            trainer = wiring.trainer(
                network,
                loader=loader,
                evaluator=evaluator,
                frozen=frozen,
                output=output,
                emit=self.emit,
                poll=self.control.poll,
            )
            if snapshot is not None and self.request.resume is not None:
                trainer.restore(snapshot)
                if longer:
                    last = snapshot.position.epoch - 1
                    trainer.stopping = patience_anew(trainer.stopping, config.patience, last)
                output.go_on_from(self.request.resume)
            else:
                self._announce(plan, loader)
            wish = trainer.run()
        if evaluator is None or isinstance(output, NoOutput):
            return RunResult("stopped" if wish else "succeeded", wish, trainer.best, None, [])
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

    def _settle_anchors(self, plan: Plan, network: Network, snapshot: Snapshot | None) -> None:
        """Put the anchors trained with into the head: a checkpoint's, or the model's, or fitted ones."""
        head = network.head
        if snapshot is not None:
            place = f"model.{len(network.model) - 1}.anchors"
            if place in snapshot.model and snapshot.model[place].shape == head.anchors.shape:
                head.anchors.copy_(snapshot.model[place])
            return  # another network's is refused where the state is put back
        choice = choose_anchors(
            sizes_px(self.data.train, plan.imgsz[0]),
            None if plan.anchors_are_placeholders else plan.anchors_px,
            num_levels=len(plan.strides),
            anchors_per_level=head.anchors.shape[1],
            strides=plan.strides,
            imgsz=plan.imgsz[0],
            anchor_t=self.config.hyp.anchor_t,
            seed=self.config.seed,
            enabled=self.config.autoanchor,
        )
        for event in anchor_events(choice, plan.imgsz[0]):
            self.emit(event)
        if choice.changed:
            head.set_anchors_px(choice.anchors_px.tolist())

    def _settle(self, plan: Plan, network: Network, snapshot: Snapshot | None) -> Wiring:
        """Settle precision and batch, by measuring at a start, and return what all parts are built from."""
        wiring = Wiring(
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
            group=self.group,
        )
        before = snapshot.identity if snapshot else {}
        self.amp_off = before.get("amp_off", False) if snapshot else self._is_unsound(wiring, network)
        if self.group is not None:
            self.amp_off = self.group.any(self.amp_off)
        if self.amp_off:
            self.precision = Precision("fp32", self.device)
            wiring = replace(wiring, precision=self.precision)
        if self.config.batch == AUTO_BATCH:
            batch = before["batch"] if "batch" in before else self._measured_batch(wiring, network)
            wiring = replace(wiring, batch=batch)
        return wiring

    def _is_unsound(self, wiring: Wiring, network: Network) -> bool:
        """Tell whether the reduced precision fails on this device; raises NonFiniteError if fp32 does too."""
        check = wiring.check_amp(network)
        if not check.sound_in_fp32:
            raise NonFiniteError(f"the network cannot be trained: {check.reason}", place="start weights")
        if not check.ok:
            self._warn("AMP_OFF", f"the run goes on in fp32: {check.reason}")
        return not check.ok

    def _measured_batch(self, wiring: Wiring, network: Network) -> int:
        choice = wiring.measure_batch(network)
        self.emit(Log(message=choice.summary()))
        if not self.config.quad:
            return choice.batch
        if choice.batch < QUAD:
            raise OutOfMemoryError(
                f"quads take {QUAD} images at least, and {choice.batch} fit into memory", place="/batch"
            )
        return choice.batch // QUAD * QUAD

    def _output(self, plan: Plan, identity: dict[str, Any]) -> RunFolder | NoOutput:
        if not self.is_first:
            return NoOutput()
        return RunFolder(
            self.request.folder,
            emit=self.emit,
            card=self._card(plan),
            identity=identity,
            save_period=self.config.save_period,
            keep_checkpoints=self.settings.keep_checkpoints,
            background=self.settings.background_checkpoints,
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
            return RunResult(
                "stopped" if wish else "succeeded", wish, best, row_metrics(trainer.rows, best), artifacts
            )
        labels, names = output.artifacts / "labels", [val.name or str(val.path) for val in self.data.val]
        wanted, with_score = self.settings.save_txt, self.settings.save_conf
        try:
            with written_detections(labels, names, wanted=wanted, with_score=with_score) as take:
                result = judge_best(average, trainer.best_weights, partial(evaluator, take=take))
        except Interrupted as interruption:
            if interruption.wish != "stop":
                raise
            return RunResult("succeeded", None, best, row_metrics(trainer.rows, best), artifacts)
        metrics = figures(result, self.data.names)
        artifacts.append(export_figures(output, metrics))
        if self.settings.pictures:
            artifacts += export_pictures(
                output,
                result=result,
                rows=trainer.rows,
                names=self.data.names,
                labels=[sample.rows for sample in self.data.train],
                batches=self.wiring.first_batches(),
            )
        if self.settings.onnx:
            artifacts += export_onnx(
                output,
                network=average,
                best=trainer.best_weights,
                stride=self.wiring.val_stride,
                picture=next(((sample.path, sample.image) for sample in result.samples), None),
                warn=self._warn,
            )
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
            "amp_off": self.amp_off,
            "threads": self.threads,
            "device": str(self.device),
            **environment(),
        }

    def _card(self, plan: Plan) -> WeightsCard:
        strides = np.array(plan.strides, np.float32)
        return WeightsCard(
            names=self.data.names,
            strides=[float(stride) for stride in plan.strides],
            anchors_px=(self.wiring.anchors_grid * strides[:, None, None]).tolist(),
            architecture=self.request.architecture_text,
            architecture_name=self.request.architecture_name,
            imgsz=self.wiring.imgsz,
            config=self.config.model_dump_json(),
            batch=self.wiring.batch,
        )

    def _warn(self, code: str, message: str) -> None:
        self.emit(Warned(code=code, message=message))

    def _check(self) -> None:
        wish = self.control.poll()
        if wish is not None:
            raise Interrupted(wish)
