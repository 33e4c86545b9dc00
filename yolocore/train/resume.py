"""Which runs a checkpoint may go on as: the same one, or a finished one that is given more epochs.

It must not know the loop; whoever asks holds both descriptions of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from yolocore.errors import CheckpointError, ConfigError
from yolocore.spec.config import parse_config
from yolocore.train.checkpoint import Snapshot
from yolocore.train.stopping import EarlyStopping

SAME_RUN = ("config_hash", "architecture", "classes", "dataset")
CIRCUMSTANCES = ("precision", "threads", "device", "torch", "numpy", "opencv", "machine", "processor")
LENGTH = ("epochs", "patience")


def check_resumed(snapshot: Snapshot, now: Mapping[str, Any], warn: Callable[[str, str], None]) -> bool:
    """Return whether a finished run is given more epochs.

    `now` describes the run as `Snapshot.identity` does; what the checkpoint says nothing about is taken to be
    the same. Raises CheckpointError for a checkpoint of another run; warns where equal numbers can no longer
    be promised.
    """
    before = {**now, **snapshot.identity}
    longer = is_lengthened(snapshot, now["config"])
    for name in SAME_RUN:
        if before[name] != now[name] and not (longer and name == "config_hash"):
            raise CheckpointError(
                "the checkpoint is of another run", place=name, value=_difference(before, now, name)
            )
    for name in CIRCUMSTANCES:
        if before[name] != now[name]:
            warn("RESUME_DIFFERS", f"{name} was {before[name]}, is {now[name]}; the numbers may differ")
    return longer


def is_lengthened(snapshot: Snapshot, config: Mapping[str, Any]) -> bool:
    """Tell whether the checkpoint's run has ended and `config` only gives it another number of epochs.

    Raises CheckpointError where that number is too small to go on.
    """
    try:
        before = parse_config(snapshot.identity["config"])
    except (KeyError, ConfigError):
        return False
    wanted = parse_config(config)
    length = {name: getattr(wanted, name) for name in LENGTH}
    if before == wanted or before.model_copy(update=length).config_hash() != wanted.config_hash():
        return False
    finished = snapshot.position.epoch
    stopping = EarlyStopping(**snapshot.stopping)
    if finished < before.epochs and not stopping.exhausted(finished - 1):
        return False
    if wanted.epochs <= finished:
        raise CheckpointError(
            f"the run has finished {finished} epochs; to go on it needs a larger number of epochs in all",
            place="/epochs",
            value=str(wanted.epochs),
        )
    return True


def patience_anew(stopping: EarlyStopping, patience: int, last_epoch: int) -> EarlyStopping:
    """Return early stopping that waits its whole patience from the last finished epoch on."""
    return EarlyStopping(patience, stopping.best_fitness, last_epoch)


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> str | None:
    """Return what differs between two configurations, in words, as far as they say."""
    if name != "config_hash":
        return None
    old, new = before.get("config", {}), now.get("config", {})
    told = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted({*old, *new} - {"hyp", "val", "runtime", "preset"})
        if old.get(key, new.get(key)) != new.get(key, old.get(key))
    ]
    told += [
        f"{part}.{key} was {old[part][key]!r}, is {new[part][key]!r}"
        for part in ("hyp", "val")
        for key in sorted({*old.get(part, {})} & {*new.get(part, {})})
        if old[part][key] != new[part][key]
    ]
    return "; ".join(told)[:500] or None
