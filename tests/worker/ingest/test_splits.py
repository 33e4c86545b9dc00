"""Pictures of archives that name no splits are divided by their names, the same way each time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.packing import judge, picture
from worker.ingest.report import Report
from worker.ingest.splitting import divide, split_of_path, split_word
from yolocore.spec.imports import SplitShares

SHARES = SplitShares(train=0.6, val=0.3, test=0.1)
LABEL = b"0 0.5 0.5 0.5 0.5\n"


def flat(count: int = 12, root: str = "") -> dict[str, bytes]:
    """Return a labelImg folder: pictures, labels beside them, and classes.txt."""
    files = {f"{root}classes.txt": b"cat\ndog\n"}
    for number in range(count):
        files |= {f"{root}{number}.png": picture(number), f"{root}{number}.txt": LABEL}
    return files


def test_a_flat_folder_is_divided_and_it_is_said(tmp_path: Path) -> None:
    found = judge(flat(), tmp_path)
    assert found.status == "ready", found.problems
    splits = found.result["splits"]
    assert splits["train"] + splits["val"] == 12 and splits["test"] == 0
    entry = found.entry("SPLITS_MADE")
    assert entry["severity"] == "info"
    assert f"{splits['train']} train, {splits['val']} val" in entry["message"]


@pytest.mark.parametrize("root", ["set/", "a/b/"])
def test_the_folder_around_everything_changes_nothing(root: str, tmp_path: Path) -> None:
    plain, inside = judge(flat(), tmp_path / "x"), judge(flat(root=root), tmp_path / "y")
    assert plain.manifest == inside.manifest


def test_labels_in_their_own_folder_with_the_classes(tmp_path: Path) -> None:
    files = {"labels/classes.txt": b"cat\n"}
    for number in range(5):
        files |= {f"images/{number}.png": picture(number), f"labels/{number}.txt": LABEL}
    found = judge(files, tmp_path)
    assert found.status == "ready", found.problems
    assert found.result["num_boxes"] == 5


def test_plain_split_folders_with_labels_beside_are_no_mystery(tmp_path: Path) -> None:
    files = {"classes.txt": b"cat\n"}
    for number, split in enumerate(("train", "val", "test")):
        files |= {f"{split}/{number}.png": picture(number), f"{split}/{number}.txt": LABEL}
    found = judge(files, tmp_path)
    assert found.result["splits"] == {"train": 1, "val": 1, "test": 1}
    assert "SPLITS_MADE" not in found.codes()


def test_shares_are_those_of_the_import(tmp_path: Path) -> None:
    found = judge(flat(40), tmp_path, splits={"train": 0.2, "val": 0.2, "test": 0.6})
    splits = found.result["splits"]
    assert splits["test"] > splits["train"] and sum(splits.values()) == 40


def test_a_picture_goes_by_the_hash_of_its_name_below_the_root() -> None:
    names = [f"set/{number}.jpg" for number in range(300)]
    splits = divide(names, "set", SHARES, Report())
    for number in range(300):
        digest = hashlib.sha256(f"{number}.jpg".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / 2**64
        expected = "train" if draw < 0.6 else "val" if draw < 0.9 else "test"
        assert f"set/{number}.jpg" in splits[expected]  # type: ignore[index]
    assert len(splits["train"]) == pytest.approx(180, abs=30)


PICTURES = st.sets(st.text(min_size=1, max_size=6), max_size=12)


@given(PICTURES, st.sampled_from([SHARES, SplitShares(), SplitShares(train=0.01, val=0.01, test=0.98)]))
def test_each_picture_is_in_one_split_and_none_starves(names: set[str], shares: SplitShares) -> None:
    splits = divide(names, "", shares, Report())
    assert sorted(name for group in splits.values() for name in group) == sorted(names)
    if len(names) >= 2:
        assert splits["train"] and splits["val"]


@given(PICTURES, st.text(min_size=1, max_size=6))
def test_another_picture_moves_no_other(names: set[str], more: str) -> None:
    names |= {f"{number}" for number in range(40)}  # so many that no split starves
    before, after = (divide(group, "", SHARES, Report()) for group in (names, names | {more}))
    for split, group in before.items():
        assert set(group) <= set(after[split])


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("instances_train2017.json", "train"),
        ("Training", "train"),
        ("valid", "val"),
        ("val_1.json", "val"),
        ("test-dev", "test"),
        ("trainval.json", None),
        ("train_val", None),
        ("evaluation", None),
        ("latest", None),
        ("constraint", None),
    ],
)
def test_words_for_splits(text: str, split: str | None) -> None:
    assert split_word(text) == split


def test_the_nearest_folder_counts() -> None:
    assert split_of_path("train/valid/x.json") == "val"
    assert split_of_path("train/x/test.json") == "test"
    assert split_of_path("a/b.json") is None
