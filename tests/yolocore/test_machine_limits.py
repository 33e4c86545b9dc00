"""Runs on a full disk and in too little memory: refused by name, with what was written before intact.

The limits are real ones, set in programs of their own: a small file system in a mount namespace, the kernel's
bounds on the size of a file and of a process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.shapes import TINY_MODEL, write_shapes

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 100
IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]

FULL_DISK = """
import json, os, resource, shutil, sys
from pathlib import Path
from tests.support.runs import do_run, request
from yolocore.errors import CoreError
from yolocore.train.checkpoint import checkpoints_in, load_checkpoint

data_yaml, root, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
REPORT = {}

def fill():
    if kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
        return
    with (root / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass

def empty():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (root / "ballast").unlink(missing_ok=True)

MOMENTS = {
    "start": lambda event: event.type == "start",
    "table": lambda event: event.type == "phase" and event.phase == "validating" and seen["epochs"] == 1,
    "checkpoint": lambda event: event.type == "epoch" and event.epoch == 1,
    "export": lambda event: event.type == "phase" and event.phase == "exporting",
}
for moment, is_now in MOMENTS.items():
    folder, seen = root / moment, {"epochs": 0}

    def watch(event):
        if is_now(event):
            fill()
        seen["epochs"] += event.type == "epoch"

    try:
        do_run(request(folder, data_yaml, epochs=2), watch=watch)
        named = None
    except CoreError as error:
        named = [error.code, error.message, error.place]
    finally:
        empty()
    whole = [load_checkpoint(path).position.epoch for path in checkpoints_in(folder / "checkpoints")]
    parts = [path.name for path in folder.rglob("*.part")]
    empties = [path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size == 0]
    REPORT[moment] = {"error": named, "checkpoints": whole, "left": parts + empties}
    shutil.rmtree(folder)
print("report", json.dumps(REPORT))
"""


def child(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module", params=["disk", "limit"])
def report(request: pytest.FixtureRequest, data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What runs told and left whose disk became full at different moments."""
    root = tmp_path_factory.mktemp("small")
    program = [sys.executable, "-c", FULL_DISK, str(data_yaml), str(root), request.param]
    if request.param == "disk":
        if shutil.which("unshare") is None or child(*IN_NAMESPACE, "true").returncode:
            pytest.skip("this machine lets nobody mount a small file system")
        mount = 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"'
        program = [*IN_NAMESPACE, "sh", "-c", mount, str(root), *program]
    done = child(*program)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("report "))
    return json.loads(line.removeprefix("report "))


@pytest.mark.parametrize(
    ("moment", "place", "checkpoints"),
    [
        ("start", "", []),
        ("table", "/artifacts/", [1]),
        ("checkpoint", "e0002-b000000.ckpt", [1]),
        ("export", "/artifacts/", [1, 2]),
    ],
)
def test_a_full_disk_is_named_and_what_was_written_before_is_whole(
    report: Any, moment: str, place: str, checkpoints: list[int]
) -> None:
    found = report[moment]
    assert found["error"], "the run did not fail"
    code, message, where = found["error"]
    assert code == "DISK_FULL" and message and place in where
    assert (found["checkpoints"], found["left"]) == (checkpoints, [])


# The limit is set once all libraries are there and OpenBLAS, which ends the program where it gets none, has
# its buffers: only what the run itself takes is bounded.
LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import yolocore.run
np.ones((300, 300)) @ np.ones((300, 300))
from yolocore.__main__ import main
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("room_mb", [30, 500])
def test_too_little_memory_is_named_with_a_way_out(data_yaml: Path, tmp_path: Path, room_mb: int) -> None:
    cfg = tmp_path / "tiny.yaml"
    cfg.write_text(TINY_MODEL)
    out = tmp_path / "out"
    done = child(
        *(sys.executable, "-c", LITTLE_MEMORY, str(room_mb << 20), "train", "--no-pictures"),
        *(f"--data={data_yaml}", f"--cfg={cfg}", f"--out={out}", "--epochs=2", "--imgsz=1600"),
        *("--batch=10", "--threads=1", "--workers=1"),
    )
    assert (done.returncode, "error OUT_OF_MEMORY" in done.stderr) == (1, True), done.stderr
    assert "lower the batch or the image size" in done.stderr and "Traceback" not in done.stderr
    assert not list(out.rglob("*.ckpt")) and not list(out.rglob("*.part"))
