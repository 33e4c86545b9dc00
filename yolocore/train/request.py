"""What a run is given besides its configuration, what it gives back, and how hints meet settings.

Plain values; it must not know how any of it is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from yolocore.spec.config import CacheName, Runtime, TrainConfig
from yolocore.spec.events import ArtifactSaved
from yolocore.train.checkpoint import Best
from yolocore.train.protocols import Wish

CACHES: tuple[CacheName, ...] = ("none", "disk", "ram")


@dataclass(frozen=True)
class RunSettings:
    """Time and place: nothing here changes the numbers, except `threads` where the configuration has none.

    `keep_checkpoints` None only ever adds checkpoints; a number keeps the newest ones. With
    `background_checkpoints` a thread writes them, and emits their events, while training goes on. `pictures`
    are the plots and predictions at the end; `save_txt` writes the detections of the best weights as label
    text, `save_conf` with their scores; `onnx` writes them for other programs too.
    """

    device: str = "cpu"
    loader_threads: int = 1
    cache: CacheName = "none"
    cache_dir: Path | None = None
    checkpoint_every_s: float = 60.0
    threads: int | None = None
    keep_checkpoints: int | None = None
    background_checkpoints: bool = True
    pictures: bool = True
    save_txt: bool = False
    save_conf: bool = False
    compile: bool = False
    compile_backend: str = "inductor"
    onnx: bool = False

    def within(self, hints: Runtime) -> RunSettings:
        """Follow a run's hints as far as these settings allow: fewer threads, a smaller cache, the CPU.

        Whether to compile is the run's own affair.
        """
        workers = self.loader_threads if hints.workers is None else min(hints.workers, self.loader_threads)
        cache = self.cache if hints.cache is None else min(hints.cache, self.cache, key=CACHES.index)
        device = "cpu" if hints.device == "cpu" else self.device
        onnx = self.onnx and hints.onnx
        compiles = self.compile if hints.compile is None else hints.compile
        return replace(self, device=device, loader_threads=workers, cache=cache, onnx=onnx, compile=compiles)


@dataclass(frozen=True)
class RunRequest:
    """One run to do in `folder`: either a `data_yaml`, or a `manifest` with the root of its images.

    `weights` is a file to start from, a published one or our own. `resume` is a checkpoint to go on from,
    whose weights count then; the resume event is then the caller's if it was `announced`.
    """

    folder: Path
    config: TrainConfig
    architecture_name: str
    architecture_text: str
    data_yaml: Path | None = None
    manifest: Path | None = None
    images_root: Path | None = None
    weights: Path | None = None
    resume: Path | None = None
    announced: bool = False
    settings: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class RunResult:
    """How a run ended; `kind` is the wish that ended it, `metrics` those of the best weights."""

    outcome: Literal["succeeded", "stopped"]
    kind: Wish | None
    best: Best | None
    metrics: dict[str, Any] | None
    artifacts: list[ArtifactSaved]


class Control(Protocol):
    """Where a run asks, once a batch, whether it should end."""

    def poll(self) -> Wish | None: ...


class NoControl:
    """Nobody wishes anything."""

    def poll(self) -> Wish | None:
        """Return None."""
        return None
