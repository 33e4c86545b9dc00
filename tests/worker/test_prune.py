"""The pointed-to, the newest and the best checkpoint always stay."""

from pathlib import Path

import pytest

from worker.prune import Saved, doomed, prune


def saved(*places: tuple[int, int, int]) -> list[Saved]:
    return [Saved(a, e, b, f"attempts/{a}/checkpoints/e{e:04d}-b{b:06d}.ckpt") for a, e, b in places]


CASES = {
    "nothing": ([], 0, None, []),
    "one": ([(1, 1, 0)], 0, 0, []),
    "an older one goes": ([(1, 1, 0), (1, 2, 0)], 1, None, [(1, 1, 0)]),
    "the best stays": ([(1, 1, 0), (1, 2, 0), (1, 3, 0)], 2, 0, [(1, 2, 0)]),
    "newer than the pointer stays": ([(1, 1, 0), (1, 2, 0), (1, 2, 40)], 1, None, [(1, 1, 0)]),
    "mid-epoch is not the best": ([(1, 1, 0), (1, 1, 30), (1, 2, 0)], 2, 0, [(1, 1, 30)]),
    "an earlier attempt's best stays": ([(1, 1, 0), (1, 2, 0), (2, 3, 0)], 2, 0, [(1, 2, 0)]),
    "the newest of a best computed twice": ([(1, 2, 0), (2, 2, 0), (2, 3, 0)], 2, 1, [(1, 2, 0)]),
}


@pytest.mark.parametrize(("places", "pointed", "best", "gone"), CASES.values(), ids=list(CASES))
def test_what_may_go(
    places: list[tuple[int, int, int]], pointed: int, best: int | None, gone: list[tuple[int, int, int]]
) -> None:
    all_saved = saved(*places)
    path = all_saved[pointed].path if all_saved else "none"
    assert doomed(all_saved, pointed=path, best_epoch=best) == saved(*gone)


def test_only_complete_checkpoints_are_touched(tmp_path: Path) -> None:
    folder = tmp_path / "attempts" / "1" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("e0001-b000000.ckpt", "e0002-b000000.ckpt", "e0003-b000000.ckpt.part", "other.ckpt"):
        (folder / name).touch()
    gone = prune(tmp_path, pointed="attempts/1/checkpoints/e0002-b000000.ckpt", best_epoch=None)
    assert gone == ["attempts/1/checkpoints/e0001-b000000.ckpt"]
    assert len(list(folder.iterdir())) == 3
