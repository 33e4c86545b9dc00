"""`trainshed gc` as a person runs it: what it prints, and that a dry run changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.domain.blobs import BlobStore
from api.domain.settings import get_settings
from api.domain.store import open_store
from api.gc import Report, human_bytes, main
from api.sweep import Freed
from tests.support.service import World, new_world
from tests.support.shared import ROOT

BOOK = "TRAINSHED_DATABASE_URL"


@pytest.fixture
def world(tmp_path: Path, books_in: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A service on whose disk lies an upload that never got its row."""
    with new_world(tmp_path) as made:
        monkeypatch.setenv(BOOK, made.settings.sql_url)
        get_settings.cache_clear()
        store = BlobStore(made.settings.blobs_dir)
        path = store.path(store.put_bytes(bytes(4000)).sha256)
        os.utime(path, (1000, 1000))
        yield made
    get_settings.cache_clear()


def data(world: World) -> list[str]:
    return ["--data", str(world.settings.data_dir)]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_560_000, "4.6 MB"), (10**16, "10000.0 TB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human_bytes(size) == text


def test_only_the_first_of_a_kind_are_lines() -> None:
    report = Report()
    lines = [report.add(Freed("content", str(number), 100)) for number in range(30)]
    assert sum(line is not None for line in lines) == 20
    assert list(report.closing(dry_run=True)) == ["30 x content: 3.0 kB", "would free 3.0 kB"]


def test_a_dry_run_tells_and_leaves(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*data(world), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[-2:] == ["1 x content: 4.0 kB", "would free 4.0 kB"]
    assert len(world.files()) == 1
    assert main(data(world)) == 0
    assert capsys.readouterr().out == told.replace("would free", "freed")
    assert world.files() == []
    assert main(data(world)) == 0
    assert capsys.readouterr().out == "freed 0 B\n"


def test_for_machines(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*data(world), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["size_bytes"], told["problems"]) == (True, 4000, [])
    assert told["items"][0]["kind"] == "content"


def test_a_folder_without_a_book_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "absent")]) == 1
    assert "use --data" in capsys.readouterr().err
    assert not (tmp_path / "absent").exists()


def test_a_book_of_another_version_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(world.settings)
    store.write(lambda conn: conn.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'").rowcount)
    store.close()
    assert main(data(world)) == 1
    assert "another version" in capsys.readouterr().err


def test_the_program(world: World) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINSHED_")}
    environment[BOOK] = world.settings.sql_url
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.main", *data(world), "gc", "--dry-run"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "would free 4.0 kB" in done.stdout
