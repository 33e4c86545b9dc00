"""What a training may start from: which files can be weights at all, which of their tensors a network takes.

Both are asked long before anything is loaded, by whoever only knows first bytes, names and shapes. Must not
know torch, nor how a tensor is read or copied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

HEAD_BYTES = 512
Shape = tuple[int, ...]

_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = b"PK\x03\x04"
# Counts, not learned numbers: a network that takes nothing else has not been started from anything.
_COUNTER = "num_batches_tracked"


def head_problem(head: bytes) -> tuple[str, str] | None:
    """Return code and words for a file that cannot be weights by its first 512 bytes; None where it can."""
    if not head:
        return "CHECKPOINT_EMPTY", "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "CHECKPOINT_LFS_POINTER", "the file is a Git LFS pointer, not the weights: git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "CHECKPOINT_HTML", "the file is a web page, not weights; the download went wrong"
    if head.startswith(_OLD_TORCH):
        return "CHECKPOINT_OLD_FORMAT", "the file is of a PyTorch before 1.6; save it anew with a later one"
    if not head.startswith(_ZIP):
        return "CHECKPOINT_FOREIGN", "the file is not a PyTorch checkpoint"
    return None


class LeftOut(NamedTuple):
    """A tensor that is not taken; shapes are those of the file and of the network, None where absent."""

    name: str
    reason: str
    given: Shape | None
    wanted: Shape | None

    def __str__(self) -> str:
        shapes = f" {list(self.given)} for {list(self.wanted)}" if self.given and self.wanted else ""
        return f"{self.name} ({self.reason}{shapes})"

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        given, wanted = (None if shape is None else list(shape) for shape in (self.given, self.wanted))
        return {"name": self.name, "reason": self.reason, "given": given, "wanted": wanted}


@dataclass(frozen=True)
class StartFit:
    """The tensors of a network that a file can give, and all that it leaves out, of both sides."""

    taken: tuple[str, ...]
    total: int
    left_out: tuple[LeftOut, ...]

    @property
    def is_start(self) -> bool:
        """Whether anything learned is among what is taken."""
        return any(_COUNTER not in name and "anchor" not in name for name in self.taken)


def match_tensors(
    wanted: Sequence[tuple[str, Shape]],
    given: Mapping[str, Shape],
    *,
    not_finite: Collection[str] = (),
    keep_anchors: bool = True,
) -> StartFit:
    """Tell which tensors of a network, by name and shape, a file of weights can give.

    `not_finite` names the file's tensors with NaN or infinity, which are left out, as anchors are if the
    network keeps its own.
    """
    taken, left_out = [], []
    for name, shape in wanted:
        reason = _reason(name, shape, given.get(name), name in not_finite, keep_anchors)
        if reason is None:
            taken.append(name)
        else:
            left_out.append(LeftOut(name, reason, given.get(name), shape))
    known = {name for name, _ in wanted}
    left_out += [LeftOut(name, "unknown", shape, None) for name, shape in given.items() if name not in known]
    return StartFit(tuple(taken), len(wanted), tuple(left_out))


def _reason(name: str, shape: Shape, given: Shape | None, is_bad: bool, keep_anchors: bool) -> str | None:
    if keep_anchors and "anchor" in name:
        return "anchors are the model's"
    if given is None:
        return "not in the file"
    if given != shape:
        return "shape"
    return "not finite" if is_bad else None
