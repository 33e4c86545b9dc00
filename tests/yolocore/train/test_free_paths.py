"""Names that are free, and folders that appear whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yolocore.train.files import claim_folder, free_path, remove_leftovers, whole_folder


def test_the_first_free_number_follows_the_name(tmp_path: Path) -> None:
    assert free_path(tmp_path / "exp") == tmp_path / "exp"
    for name in ("exp", "exp2", "exp4", "v1.0"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.txt").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = [free_path(tmp_path / name).name for name in ("exp", "v1.0", "a.txt", "gone")]
    assert found == ["exp3", "v1.02", "a2.txt", "gone2"]


def test_who_claims_at_once_gets_a_folder_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(claim_folder, [tmp_path / "runs" / "exp"] * 40))
    assert len(set(claimed)) == 40
    assert all(folder.is_dir() for folder in claimed)


def test_a_folder_takes_the_place_of_the_old_one_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    for name in ("old.txt", "new.txt"):
        with whole_folder(folder) as draft:
            (draft / name).touch()
            assert not (folder / name).exists()
    assert [path.name for path in folder.iterdir()] == ["new.txt"]
    with pytest.raises(RuntimeError), whole_folder(folder) as draft:
        (draft / "half.txt").touch()
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_killed_writer_leaves_a_folder_that_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".labels.123.part"
    left.mkdir()
    (left / "a.txt").touch()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
