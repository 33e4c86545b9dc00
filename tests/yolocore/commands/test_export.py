"""What leaves for other programs says what it is, computes what its source does, and needs nothing of us."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support.runs import do_run, request
from tests.support.shared import ROOT, weights_dir
from tests.yolocore.commands.conftest import Finished
from yolocore.__main__ import main
from yolocore.detector import load_detector
from yolocore.model.fuse import folded_copy


def export(finished: Finished, out: Path, *more: str) -> int:
    return main(["export", f"--weights={finished.best}", f"--out={out}", *more])


def test_both_formats_say_what_they_are(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = finished.data_yaml.parent / "images" / "val" / "000.png"
    assert export(finished, tmp_path, "--format=onnx,torchscript", f"--image={image}", "--threads=1") == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and all("differs from its source by" in line for line in told)
    names = {"best.onnx", "best.onnx.json", "best.torchscript", "best.torchscript.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    report = json.loads((tmp_path / "best.onnx.json").read_text())
    assert [item["probe"] for item in report["comparisons"]] == ["noise", "scenery", "000.png"]
    said = onnxruntime.InferenceSession(str(tmp_path / "best.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(said["names"]) == {"0": "square", "1": "disc"}
    assert (said["stride"], said["imgsz"], said["architecture"]) == ("32", "[64, 64]", "tiny.yaml")
    assert json.loads(said["trained_with"])["epochs"] == 5
    assert json.loads(said["trained_with"])["hyp"]["lr0"] == 0.03

    detector = load_detector(finished.best)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = folded_copy(detector.network)(images)[0].numpy()
    session = onnxruntime.InferenceSession(str(tmp_path / "best.onnx"))
    (given,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-3)


def test_published_weights_with_suppression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["export", f"--weights={weights_dir() / 'yolov5n.pt'}", f"--out={tmp_path}", "--imgsz=160"]
    assert main([*given, "--nms", "--dynamic", "--conf=0.05", "--threads=1"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "yolov5n.onnx"))
    assert [output.name for output in session.get_outputs()] == ["detections", "output0"]
    assert "trained_with" in session.get_modelmeta().custom_metadata_map
    found = session.run(None, {"images": np.zeros((2, 3, 96, 160), np.float32)})
    assert found[0].shape[1] == 7 and found[1].shape == (2, 3 * (12 * 20 + 6 * 10 + 3 * 5), 85)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--format=tflite", "onnx and torchscript"),
        ("--batch=0", "at least one picture"),
        ("--opset=3", "an opset from"),
        ("--image=absent.png", "absent.png"),
    ],
)
def test_what_cannot_be_is_named(
    option: str, message: str, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(finished, tmp_path, option) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_delivers_its_best_as_onnx(finished: Finished, tmp_path: Path) -> None:
    asked = request(tmp_path / "run", finished.data_yaml, epochs=1)
    told = do_run(asked, onnx=True)
    names = [event.name for event in told.of("artifact")]
    assert names[-2:] == ["best.onnx", "best.onnx.json"] and not told.of("warning")
    kinds = {event.name: event.kind for event in told.of("artifact")}
    assert (kinds["best.onnx"], kinds["best.onnx.json"]) == ("weights", "report")
    first = (tmp_path / "run" / "artifacts" / "best.onnx").read_bytes()
    report = json.loads((tmp_path / "run" / "artifacts" / "best.onnx.json").read_text())
    assert report["input"] == [1, 3, 64, 64] and report["comparisons"][-1]["probe"].endswith(".png")

    detector = load_detector(tmp_path / "run" / "artifacts" / "best.pt")
    images = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    with torch.no_grad():
        expected = folded_copy(detector.network)(torch.from_numpy(images))[0].numpy()
    (given,) = onnxruntime.InferenceSession(first).run(None, {"images": images})
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-3)

    (tmp_path / "again").mkdir()
    again = do_run(request(tmp_path / "again" / "run", finished.data_yaml, epochs=1), onnx=True)
    assert (tmp_path / "again" / "run" / "artifacts" / "best.onnx").read_bytes() == first
    assert again.result.outcome == "succeeded"


def test_a_run_without_the_packages_is_told_once(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    told = do_run(request(tmp_path / "run", finished.data_yaml, epochs=1), onnx=True)
    (warned,) = told.of("warning")
    assert warned.code == "ONNX_NOT_WRITTEN" and "trainshed[export]" in warned.message
    assert told.result.outcome == "succeeded" and not (tmp_path / "run/artifacts/best.onnx").exists()
    refused = request(tmp_path / "other", finished.data_yaml, epochs=1, runtime={"onnx": False})
    assert not do_run(refused, onnx=True).of("warning")


PAGE = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
ALONE = "import sys; sys.modules['yolocore'] = sys.modules['api'] = sys.modules['worker'] = None"


@pytest.mark.parametrize(
    ("file", "told", "expected"),
    [
        (
            "best.pt",
            "print(len(tensors) > 50, names, imgsz, config['epochs'], metrics['epoch'] >= 0)",
            "True ['square', 'disc'] 64 5 True",
        ),
        ("best.onnx", "print(rows.shape)", "(1, 160, 7)"),
        ("best.torchscript", "print(tuple(rows.shape))", "(1, 160, 7)"),
    ],
)
def test_the_lines_of_the_page_run_without_this_package(
    file: str, told: str, expected: str, finished: Finished, tmp_path: Path
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (lines,) = [block for block in blocks if f'"{file}"' in block]
    (tmp_path / "best.pt").write_bytes(finished.best.read_bytes())
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 70, 3), np.uint8))
    assert file == "best.pt" or export(finished, tmp_path, "--format=onnx,torchscript") == 0
    shown = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", f"{ALONE}\n{lines}\n{told}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.strip() == expected, shown.stderr


def test_the_file_is_ordinary_onnx(finished: Finished, tmp_path: Path) -> None:
    assert export(finished, tmp_path, "--batch=2", "--half") == 0
    model = onnx.load(str(tmp_path / "best.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert {item.domain for item in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
