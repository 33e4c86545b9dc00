"""The program that imports weights: verdicts as files, our own format, bounded memory, nothing run."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.shapes import TINY_MODEL
from worker.child import child_environment
from worker.tools import EXIT_DATA, EXIT_DONE, import_weights, main
from yolocore.model.build import build_network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.weights.read import read_weights


def imported(folder: Path, content: Any, code: int = EXIT_DONE) -> tuple[dict[str, Any], dict[str, Any]]:
    """Save something as torch does, import it, and return result and report."""
    torch.save(content, folder / "given.pt")
    assert import_weights(folder, folder / "given.pt", "mine.pt", "a" * 64) == code
    return json.loads((folder / "result.json").read_text()), json.loads((folder / "report.json").read_text())


def test_our_own_weights_keep_what_they_say_of_themselves(tmp_path: Path) -> None:
    network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))
    given = {
        "format": "trainshed-weights-1",
        "model": {key: value.half() for key, value in network.state_dict().items()},
        "metrics": None,
        "names": ["a", "b"],
        "strides": [8.0, 16.0],
        "anchors_px": [],
        "architecture": TINY_MODEL,
        "architecture_name": "tiny",
        "imgsz": 64,
    }
    result, report = imported(tmp_path, given)
    assert (result["status"], result["classes"], result["num_classes"]) == ("ready", ["a", "b"], 2)
    assert len(result["architecture_hash"]) == 64 and report["problems"] == []
    assert result["num_tensors"] == len(report["tensors"]) == len(network.state_dict())
    stored = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert stored.keys() == given.keys() | {"provenance"}
    assert (stored["architecture"], stored["imgsz"]) == (TINY_MODEL, 64)
    assert json.loads(stored["provenance"])["file_name"] == "mine.pt"


def test_numbers_survive_as_they_are_in_the_narrowest_form_that_keeps_them(tmp_path: Path) -> None:
    given = {
        "half": torch.tensor([0.5, 1.0]),
        "wide": torch.tensor([0.1, 1e30]),
        "bad": torch.tensor([float("nan"), 1.0]),
        "worse": torch.tensor([float("inf"), 1.0]),
        "count": torch.tensor(3),
    }
    result, report = imported(tmp_path, given)
    kept = torch.load(tmp_path / "weights.pt", weights_only=True)["model"]
    assert {key: value.dtype for key, value in kept.items()} == {
        "half": torch.float16,
        "wide": torch.float32,
        "bad": torch.float16,
        "worse": torch.float16,
        "count": torch.int64,
    }
    after = read_weights(tmp_path / "weights.pt")
    for key, value in given.items():
        assert torch.equal(after.tensors[key].nan_to_num(7.0), value.nan_to_num(7.0)), key
    assert result["warnings"] == 1 and report["not_finite"] == ["bad", "worse"]
    assert report["problems"][0]["code"] == "WEIGHTS_NOT_FINITE"


def test_a_refusal_names_the_file_as_it_was_sent(tmp_path: Path) -> None:
    result, report = imported(tmp_path, {"epoch": 3}, EXIT_DATA)
    assert (result["status"], result["errors"]) == ("invalid", 1)
    (problem,) = report["problems"]
    assert (problem["code"], problem["file"], problem["place"]) == ("CHECKPOINT_NO_MODEL", "mine.pt", None)
    assert not (tmp_path / "weights.pt").exists()


def test_what_a_file_says_of_itself_is_cut_to_what_json_and_people_can_take(tmp_path: Path) -> None:
    given = {
        "model": {"a": torch.ones(2)},
        "date": "x" * 9999,
        "best": float("nan"),
        **{f"k{number}": number for number in range(100)},
    }
    result, _ = imported(tmp_path, given)
    metadata = result["provenance"]["metadata"]
    assert len(result["provenance"]["date"]) == 400 and len(metadata) <= 40 and "best" not in metadata


@pytest.mark.parametrize("arguments", [[], ["import-weights"], ["other", "folder"]])
def test_it_is_told_what_to_do(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 64
    assert "usage" in capsys.readouterr().err


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open("archive/data/0", "w") as member:
            for _ in range(256):
                member.write(bytes(1 << 20))
    task = {"file": str(tmp_path / "bomb.pt"), "name": "bomb.pt", "sha256": "a" * 64}
    (tmp_path / "task.json").write_text(json.dumps(task))
    command = [sys.executable, "-P", "-m", "worker.tools", "import-weights", str(tmp_path)]
    # Less than PyTorch alone takes.
    code = "import resource, os, sys; resource.setrlimit(resource.RLIMIT_AS, (256 << 20,) * 2); "
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=child_environment({}),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == EXIT_DATA
    assert "CHECKPOINT_TOO_LARGE" in (tmp_path / "report.json").read_text()
