"""Finds pictures that look the same though their bytes differ, within a split and across splits.

Two looks decide: a 64-bit difference hash (neighbouring grey cells compared) at most 4 bits apart, and grey
values that are close. It sees grey values and positions only, and its work is bounded, whatever it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.ingest.images import ImageFacts
from worker.ingest.report import Report
from worker.ingest.shrink import GREY_SIZE
from yolocore.spec.dataset import Manifest, Split

MAX_BITS = 4
MAX_GREY = 6.0
# Five bands: with at most four bits different, one band is equal (pigeonhole), so that no pair is missed.
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
# What bounds the work: neighbours looked at within one bucket, and pairs whose grey values are compared.
MAX_NEIGHBOURS = 1000
MAX_COMPARED = 10_000_000
_CHUNK = 1 << 16
_RANK: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
_FAR = np.int64(1 << 62)

Hashes = npt.NDArray[np.uint64]
Greys = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Likeness:
    """Picture `position` of a manifest looks like `other`: bits of 64 and mean grey levels of difference."""

    position: int
    other: int
    bits: int
    grey: float


def difference_hashes(greys: Greys) -> Hashes:
    """Return the 64-bit difference hash of each of (n, 72) grey values, 8 lines of 9: right above left."""
    lines = greys.reshape(-1, GREY_SIZE[1], GREY_SIZE[0])
    bits = (lines[:, :, 1:] > lines[:, :, :-1]).reshape(len(lines), 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


class _Best:
    """The nearest look-alike of each group of equal pictures, by the split it is in."""

    def __init__(self, first: Numbers) -> None:
        self.first = first
        self.cross_score, self.cross = np.full(first.shape, _FAR), np.full(first.shape, -1)
        self.same_score, self.same = np.full(first.shape, _FAR), np.full(first.shape, -1)

    def update(self, a: Numbers, b: Numbers, score: Numbers) -> None:
        """Take in pairs of groups; within `a` and within `b` each group is named once."""
        for one, other in ((a, b), (b, a)):
            for split in range(self.first.shape[1]):
                found, own = self.first[other, split], self.first[one, split]
                _improve(self.cross_score, self.cross, one, split, found, score, found >= 0)
                # Of two alike in one split only the later is reported.
                _improve(self.same_score, self.same, one, split, found, score, (found >= 0) & (found < own))


def _improve(
    scores: Numbers,
    partners: Numbers,
    rows: Numbers,
    split: int,
    found: Numbers,
    score: Numbers,
    allowed: npt.NDArray[np.bool_],
) -> None:
    take = allowed & (score < scores[rows, split])
    scores[rows[take], split] = score[take]
    partners[rows[take], split] = found[take]


def _score(bits: Numbers, grey: npt.NDArray[np.float64]) -> Numbers:
    return bits * 1_000_000 + (grey * 1000).astype(np.int64)


def _compare(greys: Greys, best: _Best, max_neighbours: int, max_compared: int) -> bool:
    """Take in every pair of near groups; return whether a bound left some out."""
    hashes = difference_hashes(greys)
    compared, bounded = 0, False
    for start, length in _BANDS:
        keys = (hashes >> np.uint64(start)) & np.uint64((1 << length) - 1)
        order = np.lexsort((hashes, keys))
        sorted_hashes, sorted_keys = hashes[order], keys[order]
        ends = np.searchsorted(sorted_keys, sorted_keys, side="right")
        alive = np.arange(len(order))
        for shift in range(1, len(order)):
            alive = alive[alive + shift < ends[alive]]
            if not len(alive):
                break
            if shift > max_neighbours or compared > max_compared:
                bounded = True
                break
            bits = np.bitwise_count(sorted_hashes[alive] ^ sorted_hashes[alive + shift])
            near = alive[bits <= MAX_BITS]
            compared += len(near)
            _take(greys, order[near], order[near + shift], bits[bits <= MAX_BITS], best)
    return bounded


def _take(greys: Greys, a: Numbers, b: Numbers, bits: npt.NDArray[np.uint8], best: _Best) -> None:
    for at in range(0, len(a), _CHUNK):
        part = slice(at, at + _CHUNK)
        difference = np.abs(greys[a[part]].astype(np.int16) - greys[b[part]]).mean(axis=1)
        close = difference <= MAX_GREY
        score = _score(bits[part][close].astype(np.int64), difference[close])
        best.update(a[part][close], b[part][close], score)


def find_alike(
    greys: Greys,
    splits: Sequence[Split],
    sha256s: Sequence[str],
    *,
    max_neighbours: int = MAX_NEIGHBOURS,
    max_compared: int = MAX_COMPARED,
) -> tuple[list[Likeness], list[Likeness], bool]:
    """Return leaks, look-alikes within a split, both worst first, and whether a bound left pairs out.

    `greys` is (n, 72) uint8. A picture stands once in each list, beside its nearest: a leak in val or test
    beside one of train (or in test beside val), a look-alike beside an earlier one. Exact copies are left to
    others. Without a bound reached no pair of nearest pictures is missed.
    """
    if not len(greys):
        return [], [], False
    _, inverse = np.unique(greys.view([("", greys.dtype)] * greys.shape[1]).reshape(-1), return_inverse=True)
    groups = np.asarray(inverse, np.int64).reshape(-1)
    ranks = np.array([_RANK[split] for split in splits])
    first = np.full((int(groups.max()) + 1, len(_RANK)), -1)
    backwards = np.arange(len(groups))[::-1]
    first[groups[backwards], ranks[backwards]] = backwards
    members = np.zeros((len(first), greys.shape[1]), np.uint8)
    members[groups] = greys
    best = _Best(first)
    everyone = np.arange(len(first))
    for split in range(len(_RANK)):
        _improve(
            best.cross_score,
            best.cross,
            everyone,
            split,
            first[:, split],
            np.zeros(len(first), np.int64),
            first[:, split] >= 0,
        )
    bounded = _compare(members, best, max_neighbours, max_compared)
    leaks, alike = _sorted_out(best, groups, ranks, sha256s)
    return leaks, alike, bounded


def _sorted_out(
    best: _Best, groups: Numbers, ranks: Numbers, sha256s: Sequence[str]
) -> tuple[list[Likeness], list[Likeness]]:
    where: dict[str, set[int]] = {}
    for sha256, rank in zip(sha256s, ranks.tolist(), strict=True):
        where.setdefault(sha256, set()).add(rank)
    seen: set[tuple[str, int]] = set()
    leaks: list[tuple[int, Likeness]] = []
    alike: list[tuple[int, Likeness]] = []
    for position, (sha256, rank, group) in enumerate(
        zip(sha256s, ranks.tolist(), groups.tolist(), strict=True)
    ):
        if rank and min(where[sha256]) >= rank:
            score, other = min(zip(best.cross_score[group, :rank], best.cross[group, :rank], strict=True))
            _add(leaks, position, int(other), int(score))
        if (sha256, rank) in seen:
            continue
        seen.add((sha256, rank))
        if best.first[group, rank] != position:
            _add(alike, position, int(best.first[group, rank]), 0)
        else:
            _add(alike, position, int(best.same[group, rank]), int(best.same_score[group, rank]))
    return _worst_first(leaks), _worst_first(alike)


def _add(found: list[tuple[int, Likeness]], position: int, other: int, score: int) -> None:
    if other >= 0:
        bits, grey = divmod(score, 1_000_000)
        found.append((score, Likeness(position, other, bits, grey / 1000)))


def _worst_first(found: list[tuple[int, Likeness]]) -> list[Likeness]:
    return [likeness for _, likeness in sorted(found, key=lambda item: (item[0], item[1].position))]


def report_likeness(manifest: Manifest, facts: Mapping[str, ImageFacts], report: Report) -> set[int]:
    """Report look-alikes and leaks, worst first; return the positions of the pictures named."""
    images = manifest.images
    greys = np.frombuffer(b"".join(facts[image.sha256].grey for image in images), np.uint8)
    leaks, alike, bounded = find_alike(
        greys.reshape(len(images), -1) if images else greys.reshape(0, GREY_SIZE[0] * GREY_SIZE[1]),
        [image.split for image in images],
        [image.sha256 for image in images],
    )
    for likeness in leaks:
        other = images[likeness.other]
        report.add(
            "warning",
            "SPLIT_LEAK_NEAR",
            f"looks the same as {other.name} in {other.split}: accuracy will look too good",
            file=images[likeness.position].name,
            value=_distance(likeness),
            fix="keep pictures of one scene or film in one split",
        )
    for likeness in alike:
        report.add(
            "info",
            "IMAGE_NEAR_DUPLICATE",
            f"looks the same as {images[likeness.other].name}",
            file=images[likeness.position].name,
            value=_distance(likeness),
        )
    if bounded:
        text = "so many pictures look alike that not every pair was compared; there may be more"
        report.add("info", "LIKENESS_BOUNDED", text)
    return {likeness.position for likeness in (*leaks, *alike)}


def _distance(likeness: Likeness) -> str:
    return f"{likeness.bits} of 64 bits, {likeness.grey:.1f} grey levels"
