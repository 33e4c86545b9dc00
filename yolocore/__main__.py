"""The core alone, for a terminal: `python -m yolocore train --data data.yaml --cfg yolov5n.yaml`.

Only reads arguments and prints; the run itself is `yolocore.run`. What starts from weights is in `commands`.
"""

from __future__ import annotations

import argparse
import copy
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import yaml

from yolocore.commands import export, predict, val
from yolocore.commands.common import read_architecture
from yolocore.errors import CheckpointError, ConfigError, CoreError
from yolocore.spec.config import CacheName, Hyperparameters, TrainConfig, parse_config, preset_names
from yolocore.spec.events import TrainEvent
from yolocore.train.checkpoint import checkpoints_in, load_checkpoint
from yolocore.train.console import line_of
from yolocore.train.files import claim_folder
from yolocore.train.protocols import Wish
from yolocore.train.request import RunSettings

KEPT_CHECKPOINTS = 2
RUNS = Path("runs/train")  # where runs go that are given no folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    0 done, 1 failed, 2 usage, 3 done but for sources that could not be read, 75 paused with a checkpoint.
    """
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except CoreError as error:
        where = f"{error.place}: " if error.place and error.place not in error.message else ""
        print(f"error {error.code}: {where}{error.message}", file=sys.stderr)
        for problem in error.problems:
            if problem.message in error.message:
                continue
            print(f"  {problem.pointer or problem.file or ''} {problem.message}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m yolocore", description="Train and use YOLOv5 detectors.")
    commands = parser.add_subparsers(dest="command", required=True)
    add_train(commands)
    val.add_parser(commands)
    predict.add_parser(commands)
    export.add_parser(commands)
    return parser


def add_train(commands: Any) -> None:
    """Add the command that trains, with its options."""
    train = commands.add_parser("train", help="train on a YOLO folder")
    train.add_argument("--data", type=Path, required=True, help="data.yaml of a YOLO folder")
    train.add_argument(
        "--cfg", help="model YAML, a file or a public name (default: yolov5n, or the checkpoint's)"
    )
    train.add_argument("--weights", type=Path, help="start from this .pt: a published one, or our own")
    train.add_argument(
        "--out", type=Path, help=f"folder for weights, table and pictures (default: the next {RUNS}/exp)"
    )
    train.add_argument("--epochs", type=int)
    train.add_argument("--batch", type=int)
    train.add_argument("--imgsz", type=int)
    train.add_argument("--seed", type=int)
    train.add_argument("--preset", choices=preset_names(), help="a published set of hyperparameters")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting or hyperparameter: --set lr0=0.005 --set optimizer=AdamW --set val.max_det=100",
    )
    train.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    train.add_argument("--threads", type=int, help="CPU threads of one operation")
    train.add_argument("--workers", type=int, default=1, help="loader threads")
    train.add_argument(
        "--cache",
        choices=get_args(CacheName),
        default="ram",
        help="where resized images stay (default ram; what does not fit goes to disk, or nowhere)",
    )
    train.add_argument(
        "--compile", action="store_true", help="compile the network first: minutes, meant for GPUs"
    )
    train.add_argument("--no-pictures", action="store_true", help="no plots and no predictions at the end")
    train.add_argument(
        "--save-txt", action="store_true", help="write what the best weights find as label text, at the end"
    )
    train.add_argument("--save-conf", action="store_true", help="with --save-txt: scores in a sixth column")
    train.add_argument("--no-onnx", action="store_true", help="no best.onnx beside best.pt at the end")
    train.add_argument(
        "--resume",
        nargs="?",
        const="newest",
        metavar="CKPT",
        help="go on from a checkpoint (default: the newest in --out, or of all "
        f"runs in {RUNS}) with its settings; "
        "a finished run goes on if it is given more --epochs",
    )
    train.set_defaults(run=train_command)


def train_command(options: argparse.Namespace) -> int:
    """Train, printing a line an epoch and where the results are."""
    if options.save_conf and not options.save_txt:
        raise ConfigError("scores are written with --save-txt only", place="--save-conf")
    checkpoint = find_checkpoint(options.out, options.resume)
    if checkpoint is None and options.out is not None and (options.out / "artifacts").exists():
        raise ConfigError("the folder holds a run; choose another, or --resume it", place=str(options.out))
    before = load_checkpoint(checkpoint).identity if checkpoint else {}
    config = read_config(options, before.get("config", {}))
    if options.cfg is None and "architecture" in before:
        cfg_name, cfg_text = before["architecture_name"], before["architecture"]
    else:
        cfg_name, cfg_text = read_architecture(options.cfg or "yolov5n")

    from yolocore.run import train
    from yolocore.train.request import RunRequest

    with run_folder(options.out, checkpoint) as out:
        print(f"folder {out}", flush=True)
        request = RunRequest(
            folder=out,
            config=config,
            architecture_name=cfg_name,
            architecture_text=cfg_text,
            data_yaml=options.data,
            weights=options.weights,
            resume=checkpoint,
            settings=read_settings(options, out),
        )
        result = train(request, emit=print_event, control=InterruptControl())
    if result.kind == "pause":
        print(f"paused; go on with --resume --out {out}")
        return 75
    best = result.best
    judged = (
        "no epoch was finished" if best is None else f"best epoch {best.epoch + 1}, mAP50 {best.map50:.3f}"
    )
    labels = out / "artifacts" / "labels"
    detections = f"; detections {labels}" if options.save_txt and labels.exists() else ""
    print(f"done: {judged}; weights {out / 'artifacts' / 'best.pt'}{detections}")
    return 0


def read_settings(options: argparse.Namespace, out: Path) -> RunSettings:
    """Return the time and place that the options ask for, for a run in the folder `out`."""
    return RunSettings(
        device=options.device,
        loader_threads=options.workers,
        cache=options.cache,
        cache_dir=out / "cache",
        threads=options.threads,
        keep_checkpoints=KEPT_CHECKPOINTS,
        pictures=not options.no_pictures,
        save_txt=options.save_txt,
        save_conf=options.save_conf,
        compile=options.compile,
        onnx=not options.no_onnx,
    )


@contextmanager
def run_folder(out: Path | None, checkpoint: Path | None) -> Iterator[Path]:
    """Yield the folder of a run: the one given, or that of the checkpoint's run, or the next free one.

    A folder made here is deleted again if a run that fails has left nothing in it.
    """
    if out is not None:
        yield out
    elif checkpoint is not None and (home := checkpoint.absolute().parent).name == "checkpoints":
        yield home.parent
    else:
        folder = claim_folder(RUNS / "exp")
        try:
            yield folder
        except BaseException:
            with suppress(OSError):  # not empty
                folder.rmdir()
            raise


def read_config(options: argparse.Namespace, before: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return what the options ask for, laid over the settings of the run that goes on; raises ConfigError."""
    values: dict[str, Any] = copy.deepcopy(dict(before or {}))
    if options.preset is not None:
        values.pop("hyp", None)
    for name in ("epochs", "batch", "imgsz", "seed", "preset"):
        if getattr(options, name) is not None:
            values[name] = getattr(options, name)
    for setting in options.set:
        key, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError("a setting is KEY=VALUE", place="--set", value=setting)
        path = ["hyp", key] if key in Hyperparameters.model_fields else key.split(".")
        section: Any = values
        for part in path[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(f"{part} is a value, not a section", place="--set", value=setting)
        section[path[-1]] = yaml.safe_load(text)
    return parse_config(values)


def find_checkpoint(out: Path | None, resume: str | None) -> Path | None:
    """Return the checkpoint to go on from, None for a new run; raises CheckpointError.

    The newest one is the last of the folder given; without a folder, of the run that wrote last.
    """
    if resume is None:
        return None
    if resume != "newest":
        return Path(resume)
    folders = RUNS.glob("*") if out is None else [out]
    found = [last for folder in folders for last in checkpoints_in(folder / "checkpoints")[-1:]]
    if not found:
        raise CheckpointError("there is no checkpoint to go on from", place=str(out or RUNS))
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def print_event(event: TrainEvent) -> None:
    """Print the events that a person reads."""
    line = line_of(event)
    if line is not None:
        print(line, flush=True)


class InterruptControl:
    """Turns the first Ctrl-C into a pause with a checkpoint; the second one ends the program at once."""

    def __init__(self) -> None:
        self._wish: Wish | None = None
        signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._wish is not None:
            raise KeyboardInterrupt
        self._wish = "pause"
        print("\npausing after this batch; Ctrl-C again to end at once", file=sys.stderr)

    def poll(self) -> Wish | None:
        """Return "pause" after Ctrl-C."""
        return self._wish


if __name__ == "__main__":
    sys.exit(main())
