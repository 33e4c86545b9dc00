"""Look-alikes: none is missed where bands could miss it, each is named once, and the work is bounded."""

from __future__ import annotations

import numpy as np
import pytest

from worker.ingest.likeness import Greys, Likeness, difference_hashes, find_alike
from yolocore.spec.dataset import Split


def grey(bits: int, base: int = 100) -> Greys:
    """Return grey values whose hash has exactly these bits, and that are near `base` all over."""
    lines = np.zeros((8, 9), np.int64)
    ones = [(bits >> (63 - at)) & 1 for at in range(64)]
    for line in range(8):
        steps = np.array([1 if one else 0 for one in ones[line * 8 : line * 8 + 8]])
        lines[line, 1:] = np.where(steps, 1, -1).cumsum()
    return (lines.reshape(-1) // 1 + base).astype(np.uint8)


def alike(greys: list[Greys], splits: list[Split] | None = None) -> tuple[list[Likeness], list[Likeness]]:
    """Return leaks and look-alikes of pictures with different bytes."""
    names = [f"{number:064}" for number in range(len(greys))]
    leaks, same, bounded = find_alike(np.array(greys), splits or ["train"] * len(greys), names)
    assert not bounded
    return leaks, same


def test_the_hash_is_of_neighbours() -> None:
    rising, falling = (
        np.tile(np.arange(9), 8).astype(np.uint8),
        np.tile(np.arange(9)[::-1], 8).astype(np.uint8),
    )
    hashes = difference_hashes(np.array([rising, falling, np.zeros(72, np.uint8)]))
    assert [int(value) for value in hashes] == [(1 << 64) - 1, 0, 0]


@pytest.mark.parametrize("seed", range(40))
def test_four_bits_anywhere_are_found_and_five_are_not(seed: int) -> None:
    random = np.random.default_rng(seed)
    bits = int(random.integers(0, 1 << 63))
    flipped = random.permutation(64)
    four = bits ^ sum(1 << int(at) for at in flipped[:4])
    five = bits ^ sum(1 << int(at) for at in flipped[:5])
    _, found = alike([grey(bits), grey(four)])
    assert [(f.position, f.other, f.bits) for f in found] == [(1, 0, 4)]
    assert alike([grey(bits), grey(five)]) == ([], [])


def test_equal_hashes_of_another_brightness_are_not_alike() -> None:
    assert alike([grey(12345), grey(12345, 160)]) == ([], [])


def test_a_leak_is_named_in_the_split_that_judges_and_worst_first() -> None:
    greys = [grey(7), grey(7), grey(7 ^ 1), grey(0xF0F0 << 40)]
    leaks, same = alike(greys, ["train", "test", "val", "train"])
    assert [(f.position, f.other, f.bits) for f in leaks] == [(1, 0, 0), (2, 0, 1)]
    assert same == []


def test_of_a_row_of_equal_pictures_all_but_the_first_are_named() -> None:
    _, same = alike([grey(99)] * 5 + [grey(99 ^ 2)])
    assert [(f.position, f.other) for f in same] == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]


def test_exact_copies_are_left_to_others() -> None:
    greys = np.array([grey(5), grey(5), grey(5)])
    assert find_alike(greys, ["train", "train", "val"], ["a", "a", "a"]) == ([], [], False)


def test_all_agree_with_a_comparison_of_every_pair() -> None:
    random = np.random.default_rng(3)
    bases = [int(random.integers(0, 1 << 63)) for _ in range(30)]
    greys = np.array(
        [grey(bases[n % 30] ^ sum(1 << int(b) for b in random.integers(0, 64, 2))) for n in range(300)]
    )
    hashes = difference_hashes(greys)
    named = set()
    for later in range(300):
        for earlier in range(later):
            near = int(np.bitwise_count(hashes[later] ^ hashes[earlier])) <= 4
            if near and np.abs(greys[later].astype(int) - greys[earlier]).mean() <= 6:
                named.add(later)
    _, same, _ = find_alike(greys, ["train"] * 300, [str(n) for n in range(300)])
    assert {found.position for found in same} == named and named


def test_what_looks_all_alike_is_bounded_and_says_so() -> None:
    # Nearly black and all different: one hash for all, so every bucket holds everything.
    random = np.random.default_rng(0)
    greys = np.zeros((5000, 72), np.uint8)
    greys[:, :9] = np.sort(random.integers(0, 60, (5000, 9)), axis=1)[:, ::-1]
    names = [str(n) for n in range(len(greys))]
    for bound in ({"max_neighbours": 20}, {"max_compared": 10_000}):
        _, same, bounded = find_alike(greys, ["train"] * len(greys), names, **bound)
        assert bounded and same
    assert find_alike(np.zeros((5000, 72), np.uint8), ["train"] * 5000, names)[2] is False


def test_nothing_is_alike_in_nothing() -> None:
    assert find_alike(np.zeros((0, 72), np.uint8), [], []) == ([], [], False)
