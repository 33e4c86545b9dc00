"""A training child without torch: obeys config.json, writes a real journal, reacts to real signals.

Started as a program: `fake_child.py [options] ATTEMPT_DIR`. What it writes has the shape of the real
trainer's files, so that everything around the trainer can be tested in seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Run:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder: Path = options.folder
        self.config = json.loads((self.folder / "config.json").read_text())
        self.attempt: int = self.config["attempt"]
        self.seq = 0
        self.journal = (self.folder / "events.jsonl").open("ab", buffering=0)
        self.stop = threading.Event()
        self.epochs: int = options.epochs or self.config["config"]["epochs"]

    def emit(self, type_: str, **payload: Any) -> None:
        self.seq += 1
        line = json.dumps({"v": 1, "seq": self.seq, "ts": time.time(), "type": type_, **payload}) + "\n"
        data = line.encode()
        # In two pieces: a reader must wait for the end of the line.
        self.journal.write(data[:20])
        self.journal.write(data[20:])

    def run(self) -> None:
        resume = self.config["resume"]
        first = 0
        if resume is None:
            self.emit("start", epochs=self.epochs, batches_per_epoch=self.options.batches, simulated=True)
        else:
            first = json.loads(Path(resume["checkpoint"]).read_text())["epoch"]
            assert first == resume["epoch"]
            self.emit("resume", epoch=first, batch=0, after=resume["after"])
        self.emit("phase", phase="training")
        for epoch in range(first, self.epochs):
            if self.attempt == 1 and epoch == self.options.hold_at:
                self.hold(epoch)
            self.epoch(epoch)
        self.finish(0, outcome="succeeded")

    def hold(self, epoch: int) -> None:
        """Wait before an epoch for a file named `go`, as a slow machine would."""
        while not (self.folder / "go").exists():
            time.sleep(0.02)
            if self.stop.is_set():
                self.obey(epoch)

    def epoch(self, epoch: int) -> None:
        for batch in range(self.options.batches):
            time.sleep(self.options.batch_s)
            if self.stop.is_set():
                self.obey(epoch)
            loss = {"box": 1 / (epoch + 1), "obj": 0.5, "cls": 0.1}
            self.emit("batch", epoch=epoch, batch=batch, batches=self.options.batches, loss=loss,
                      lr=[0.1], images_per_s=100.0, gpu_memory_bytes=None, amp_scale=None)  # fmt: skip
        self.emit("epoch", epoch=epoch, epochs=self.epochs, train=loss, val=loss, precision=0.5, recall=0.5,
                  map50=epoch / 10, map50_95=epoch / 20, fitness=epoch / 20, best=True,
                  lr=[0.1, 0.01, 0.01], seconds=0.1)  # fmt: skip
        self.checkpoint(epoch + 1)
        if self.attempt in self.options.die_in_attempt and epoch == self.options.die_after_epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    def checkpoint(self, epoch: int) -> None:
        best_epoch = epoch - 1 if epoch else None
        best = {"best_epoch": best_epoch, "best_fitness": (epoch - 1) / 20 if epoch else None}
        file = self.write(f"checkpoints/e{epoch:04d}-b000000.ckpt", json.dumps({"epoch": epoch}))
        self.emit("checkpoint", epoch=epoch, batch=0, phase="train", **best, **file)

    def write(self, name: str, text: str) -> dict[str, Any]:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".part").write_text(text)
        path.with_suffix(".part").rename(path)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return {"path": name, "sha256": sha256, "size_bytes": len(text)}

    def obey(self, epoch: int) -> None:
        wish = json.loads((self.folder / "stop.json").read_text())["kind"]
        self.emit("phase", phase="stopping")
        if wish in ("pause", "drain"):
            self.checkpoint(epoch)
        self.finish(0 if wish == "stop" else 75, outcome="stopped", kind=wish)

    def finish(self, exit_code: int, *, outcome: str, **more: Any) -> None:
        if outcome == "succeeded" or more.get("kind") == "stop":
            self.emit("artifact", name="best.pt", media_type="application/octet-stream", kind="weights",
                      **self.write("artifacts/best.pt", f"weights of attempt {self.attempt}"))  # fmt: skip
        result = {"v": 1, "outcome": outcome, "kind": None, "code": None, "message": None, "place": None,
                  "value": None, "evidence": {}, "best": None, "metrics": None, **more}  # fmt: skip
        self.write("result.json", json.dumps(result))
        sys.stdout.flush()
        os._exit(exit_code)


def watch_lifeline() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-s", type=float, default=0.01)
    parser.add_argument("--die-in-attempt", type=int, action="append", default=[])
    parser.add_argument("--die-after-epoch", type=int, default=-1)
    parser.add_argument("--hold-at", type=int, help="wait at this epoch of the first attempt")
    parser.add_argument("--fail", nargs=2, metavar=("EXIT", "CODE"))
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--helper", action="store_true", help="keep a helper process in the group")
    options = parser.parse_args()
    run = Run(options)
    threading.Thread(target=watch_lifeline, daemon=True).start()
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: run.stop.set())
    print(f"fake child {os.getpid()} attempt {run.attempt}", flush=True)
    if options.helper:
        helper = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL
        )
        run.write("helper.pid", str(helper.pid))
    run.write("environment.json", json.dumps(dict(os.environ)))
    run.write("child.pid", str(os.getpid()))
    if options.fail:
        run.emit("start", epochs=run.epochs, batches_per_epoch=1, simulated=True)
        run.finish(
            int(options.fail[0]), outcome="failed", code=options.fail[1], message="as asked", place="labels"
        )
    run.run()


if __name__ == "__main__":
    main()
