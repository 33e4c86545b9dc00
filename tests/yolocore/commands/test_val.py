"""Validation alone gives the figures that the run gave its best weights, and says what it cannot judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.shapes import TINY_MODEL, write_shapes
from tests.support.shared import weights_dir
from tests.yolocore.commands.conftest import Finished
from yolocore.__main__ import main
from yolocore.spec.config import parse_config
from yolocore.spec.labels import parse_label_text
from yolocore.val import ValRequest, settled

PICTURES = {
    *("PR_curve.png", "P_curve.png", "R_curve.png", "F1_curve.png"),
    *("confusion_matrix.png", "predictions.jpg"),
}


def judge(finished: Finished, out: Path, *more: str) -> int:
    return main(["val", f"--weights={finished.best}", f"--data={finished.data_yaml}", f"--out={out}", *more])


def test_the_figures_are_those_of_the_run(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finished.metrics["map50"] > 0
    assert judge(finished, tmp_path / "out", "--save-txt", "--save-conf") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == finished.metrics
    assert {path.name for path in (tmp_path / "out").iterdir()} == PICTURES | {"metrics.json", "labels"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "labels", "P", "R", "mAP50", "mAP50-95"]
    assert [line.split()[0] for line in lines[1:4]] == ["all", "square", "disc"]
    assert lines[1].split()[4] == f"{finished.metrics['map50']:.3f}"
    assert lines[-1] == f"done: {tmp_path / 'out'}"
    texts = list((tmp_path / "out" / "labels").iterdir())
    assert texts
    for line in texts[0].read_text().splitlines():
        row, _, score = line.rpartition(" ")
        problems = parse_label_text(row, num_classes=2)[1]
        assert 0 < float(score) <= 1 and not any(problem.dropped for problem in problems)


def test_what_is_asked_for_counts_and_the_rest_stays(finished: Finished, tmp_path: Path) -> None:
    assert judge(finished, tmp_path / "a", "--conf=0.6", "--no-plots", "--batch=2", "--workers=0") == 0
    other = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["metrics.json"]
    assert other["labels"] == finished.metrics["labels"] and other["recall"] <= finished.metrics["recall"]
    stored = parse_config({"val": {"max_det": 60, "conf_thres": 0.01}, "single_cls": True})
    config = settled(stored, ValRequest(Path("w"), Path("d"), conf_thres=0.5, batch=7))
    assert config.val.model_dump() == {"max_det": 60, "conf_thres": 0.5, "batch": 7, "iou_thres": 0.6}
    assert config.single_cls


def test_the_weights_say_what_they_were_trained_with(finished: Finished) -> None:
    content = torch.load(finished.best, weights_only=True)
    assert json.loads(content["config"])["val"]["max_det"] == 60
    assert content["batch"] == 4 and content["names"] == ["square", "disc"]


def test_a_split_that_is_not_there_and_data_of_others_are_refused(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["val", f"--weights={finished.best}", "--no-plots"]
    assert main([*command, f"--data={finished.data_yaml}", "--split=test"]) == 1
    assert "no images in the split test" in capsys.readouterr().err
    other = write_shapes(tmp_path / "other")
    other.write_text(other.read_text().replace("[square, disc]", "[disc, square]"))
    assert main([*command, f"--data={other}"]) == 0
    assert "NAMES_DIFFER" in capsys.readouterr().err
    other.write_text(other.read_text().replace("[disc, square]", "[disc, square, star]"))
    assert main([*command, f"--data={other}"]) == 1
    assert "the weights know 2 classes, the data 3" in capsys.readouterr().err
    assert main([*command, f"--data={other}", "--save-conf"]) == 1
    assert [path.name for path in Path("runs/val").iterdir()] == ["exp"]


def test_published_weights_are_judged_by_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shapes(tmp_path / "data", num_val=2)
    names = ", ".join(f"c{number}" for number in range(80))
    data.write_text(data.read_text().replace("[square, disc]", f"[{names}]"))
    given = [
        "val",
        f"--weights={weights_dir() / 'yolov5n.pt'}",
        f"--data={data}",
        f"--out={tmp_path / 'out'}",
    ]
    assert main([*given, "--imgsz=96", "--no-plots"]) == 0
    told = capsys.readouterr()
    assert "class 0 is 'person' in the weights" in told.err and told.out.startswith("class")


def test_a_file_that_is_no_detector_is_named(
    tmp_path: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.pt"
    torch.save(torch.load(finished.best, weights_only=True)["model"], bare)
    command = ["val", f"--weights={bare}", f"--data={finished.data_yaml}"]
    assert main(command) == 1
    assert "does not say which model" in capsys.readouterr().err
    assert main([*command, "--cfg=yolov5n"]) == 1
    assert "none of the given weights fits" in capsys.readouterr().err
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(TINY_MODEL)
    sizes = ["--imgsz=64", "--conf=0.01", "--no-plots", f"--out={tmp_path / 'out'}"]
    assert main([*command, f"--cfg={tiny}", *sizes]) == 0  # as many classes as its head has outputs for
    assert "class 0 is '0' in the weights" in capsys.readouterr().err
    tiny.write_text(TINY_MODEL.replace("C3, [24, False]", "C3, [16, False]"))
    assert main([*command, f"--cfg={tiny}", *sizes]) == 1
    assert "do not fill the network of tiny.yaml" in capsys.readouterr().err
    assert main(["val", f"--weights={tmp_path / 'absent.pt'}", f"--data={finished.data_yaml}"]) == 1
    assert "absent.pt" in capsys.readouterr().err
