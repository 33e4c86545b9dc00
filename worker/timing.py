"""The program that times a run's batches: `python -m worker.timing FOLDER`.

It begins the run that task.json describes, on the real data, and ends it after a few batches: result.json
says how long one took and what memory was needed. It holds no address of the service and leaves no weights;
nothing imports it, and what is heavy is imported only after the order has been read.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Literal

from worker.lifeline import hold_lifeline
from yolocore.errors import CoreError
from yolocore.spec.config import parse_config
from yolocore.spec.events import PhaseChange, Start, TrainEvent

DONE, INTERNAL, USAGE = 0, 70, 64
# The first batches fill caches and choose algorithms.
WARM_UP, WANTED, LONGEST_S = 2, 10, 30.0
SIMULATED_S = 0.01


class Stopwatch:
    """Stands where a run asks whether it should end, which it does once a batch."""

    def __init__(self) -> None:
        self.start: Start | None = None
        self.durations_s: list[float] = []
        self._is_training = False
        self._last: float | None = None
        self._count = 0
        self._began: float | None = None

    def emit(self, event: TrainEvent) -> None:
        """Hear what the run tells."""
        if isinstance(event, Start):
            self.start = event
        if isinstance(event, PhaseChange):
            self._is_training, self._last = event.phase == "training", None

    def poll(self) -> Literal["cancel"] | None:
        """Note a batch; ask for the end when enough were seen, or it takes too long."""
        now = time.monotonic()
        self._began = self._began or now
        if self._is_training:
            if self._last is not None:
                self._count += 1
                if self._count > WARM_UP:
                    self.durations_s.append(now - self._last)
            self._last = now
        late = now - self._began > LONGEST_S and bool(self.durations_s)
        return "cancel" if late or len(self.durations_s) >= WANTED else None


def main(arguments: list[str]) -> int:
    """Time the run of a folder; return 0 where result.json holds the figures, or why there are none."""
    if len(arguments) != 1:
        print("usage: python -m worker.timing FOLDER", file=sys.stderr)
        return USAGE
    hold_lifeline()
    folder = Path(arguments[0]).resolve()
    try:
        result = measure(folder, json.loads((folder / "task.json").read_bytes()))
    except CoreError as error:
        result = {"code": error.code, "message": error.message[:400]}
    except Exception:  # noqa: BLE001 (top of a process)
        traceback.print_exc()
        return INTERNAL
    (folder / "result.json").write_text(json.dumps(result))
    return DONE


def measure(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a run's first batches; raises CoreError as a run does."""
    # What a batch takes does not depend on where the anchors come from, which may take long to find.
    config = parse_config({**order["config"], "autoanchor": False})
    if order["simulated"]:
        return figures([SIMULATED_S], batch=max(1, config.batch), simulated=True)
    from yolocore.run import train
    from yolocore.train.request import RunRequest, RunSettings

    watch = Stopwatch()
    with tempfile.TemporaryDirectory(dir=folder) as run:
        request = RunRequest(
            folder=Path(run),
            config=config,
            architecture_name=order["architecture"]["name"],
            architecture_text=order["architecture"]["text"],
            manifest=Path(order["manifest"]),
            images_root=Path(order["images_root"]),
            settings=RunSettings(**order["settings"]),
        )
        train(request, emit=watch.emit, control=watch)
    assert watch.start is not None
    found = figures(watch.durations_s, batch=watch.start.batch, simulated=False)
    more = {name: getattr(watch.start, name) for name in ("device", "precision", "threads", "imgsz")}
    return found | more | {"peak_bytes": _peak_bytes(watch.start.device)}


def figures(durations_s: list[float], *, batch: int, simulated: bool) -> dict[str, Any]:
    """Return what a batch took (median, seconds), and pictures a second; None where none was timed."""
    middle = statistics.median(durations_s) if durations_s else None
    return {
        "batch": batch,
        "num_batches": len(durations_s),
        "batch_s": middle,
        "images_per_s": batch / middle if middle else None,
        "simulated": simulated,
    }


def _peak_bytes(device: str) -> int:
    """Return the largest memory a run held: of the device where it is one, else of this process."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
