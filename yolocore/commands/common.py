"""What the commands share: where results go, how a model is named, how a warning reads.

It must not know any one command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yolocore.errors import ArchitectureError
from yolocore.spec.zoo import ZOO, zoo_text
from yolocore.train.files import claim_folder


def add_weights(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options that every command on weights has."""
    parser.add_argument(
        "--weights", type=Path, required=True, help=f"{what}: our best.pt, or a published one"
    )
    parser.add_argument("--cfg", help="model YAML of the weights, where the file does not say which it is")
    parser.add_argument("--imgsz", type=int, help="longer side in pixels (default: as trained)")


def add_place(parser: argparse.ArgumentParser, base: Path) -> None:
    """Add the options that say on what it is computed and where the results go."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads of one operation")
    parser.add_argument("--out", type=Path, help=f"folder of the results (default: the next {base}/exp)")


@contextmanager
def result_folder(out: Path | None, base: Path) -> Iterator[Path]:
    """Yield the folder given, made if need be, or the next free one; an error leaves no empty folder."""
    made = out is None or not out.exists()
    folder = claim_folder(base / "exp") if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # not empty
            if made:
                folder.rmdir()
        raise


def read_cfg(cfg: str | None) -> tuple[str, str] | None:
    """Return name and text of the model YAML asked for, None if none is."""
    return None if cfg is None else read_architecture(cfg)


def read_architecture(cfg: str) -> tuple[str, str]:
    """Return name and text of a model YAML, given as a file or as a public name; raises ArchitectureError."""
    path = Path(cfg)
    if path.is_file():
        return path.name, path.read_text()
    name = path.name.removesuffix(".yaml")
    if name not in ZOO:
        raise ArchitectureError("there is no such file, and no public model of this name", place=cfg)
    return f"{name}.yaml", zoo_text(name)


def warn(code: str, message: str) -> None:
    """Print a warning where it disturbs no output."""
    print(f"warning {code}: {message}", file=sys.stderr, flush=True)
