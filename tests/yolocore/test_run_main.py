"""The core alone, as a terminal uses it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shapes import TINY_MODEL, write_shapes
from yolocore.__main__ import (
    InterruptControl,
    build_parser,
    find_checkpoint,
    main,
    read_architecture,
    read_config,
    read_settings,
    run_folder,
)
from yolocore.errors import ArchitectureError, CheckpointError, ConfigError
from yolocore.spec.labels import parse_label_text


@pytest.fixture(autouse=True)
def interrupt_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))


def arguments(data_yaml: Path, out: Path, *more: str) -> list[str]:
    cfg = out.parent / "tiny.yaml"
    cfg.write_text(TINY_MODEL)
    folders = [f"--data={data_yaml}", f"--cfg={cfg}", f"--out={out}"]
    sizes = ["--epochs=2", "--imgsz=64", "--batch=5", "--threads=1", "--workers=0"]
    return ["train", *folders, *sizes, "--no-pictures", *more]


def test_one_line_an_epoch_and_where_the_weights_are(
    data_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(arguments(data_yaml, out)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert lines[-1].startswith("done: best epoch") and str(out / "artifacts" / "best.pt") in lines[-1]
    assert len(list((out / "checkpoints").iterdir())) == 2

    assert main(arguments(data_yaml, out)) == 1  # a folder that holds a run
    assert "--resume" in capsys.readouterr().err
    assert main(arguments(data_yaml, out, "--resume")) == 0
    assert "continuing at epoch 3" in capsys.readouterr().out

    going_on = ["train", f"--data={data_yaml}", f"--out={out}", "--no-pictures", "--workers=0"]
    assert main([*going_on, "--resume", "--epochs=3"]) == 0  # model and settings are the checkpoint's
    assert "epoch 3/3" in capsys.readouterr().out
    assert main([*going_on, "--resume", "--epochs=1"]) == 1
    assert "has finished 3 epochs" in capsys.readouterr().err


def test_a_run_without_a_folder_gets_the_next_free_one(
    data_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in arguments(data_yaml, tmp_path / "out") if not word.startswith("--out")]
    words += ["--epochs=1", "--save-txt", "--save-conf", "--set=val.conf_thres=0.0001"]
    for name in ("exp", "exp2"):
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"folder runs/train/{name}"
        assert lines[-1].endswith(f"detections runs/train/{name}/artifacts/labels")
    texts = sorted(Path("runs/train/exp2/artifacts/labels").iterdir())
    assert {path.name for path in texts} <= {f"{number:03d}.txt" for number in range(4)}
    for line in texts[0].read_text().splitlines():
        row, _, score = line.rpartition(" ")
        assert 0.0001 < float(score) < 1
        assert not [problem for problem in parse_label_text(row, num_classes=2)[1] if problem.dropped]

    assert main([*words, "--resume", "--epochs=2"]) == 0
    assert f"folder {tmp_path}/runs/train/exp2\n" in capsys.readouterr().out
    absent = [f"--data={tmp_path}/none.yaml" if word.startswith("--data") else word for word in words]
    assert main(absent) == 1
    left = {path.name for path in Path("runs/train").iterdir()}
    assert left == {"exp", "exp2"}  # a run that never began leaves no folder


def test_the_newest_checkpoint_is_the_one_written_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(None, None) is None
    with pytest.raises(CheckpointError, match="no checkpoint to go on from") as caught:
        find_checkpoint(None, "newest")
    assert caught.value.place == "runs/train"
    for when, name in enumerate(("exp2/checkpoints/e0001-b000000", "exp/checkpoints/e0000-b000003")):
        path = Path("runs/train", f"{name}.ckpt")
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (when, when))
    assert find_checkpoint(None, "newest") == path
    assert find_checkpoint(Path("runs/train/exp2"), "newest") != path
    with run_folder(None, path) as home:
        assert home == tmp_path / "runs/train/exp"
    with run_folder(None, Path("best.ckpt")) as home:  # it lies in no run
        assert home == Path("runs/train/exp3")


def test_scores_need_the_texts(data_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(data_yaml, tmp_path / "out", "--save-conf")) == 1
    assert "--save-txt" in capsys.readouterr().err


def test_images_stay_in_memory_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    options = build_parser().parse_args(["train", "--data=d"])
    settings = read_settings(options, tmp_path)
    assert (settings.cache, settings.cache_dir) == ("ram", tmp_path / "cache")
    assert settings.onnx and settings.pictures


def test_any_setting_can_be_given() -> None:
    options = build_parser().parse_args(
        ["train", "--data=d", "--out=o", "--seed=5", "--set", "lr0=0.005", "--set", "optimizer=AdamW"]
        + ["--set", "val.max_det=100", "--preset=VOC"]
    )
    config = read_config(options)
    assert (config.seed, config.optimizer, config.val.max_det) == (5, "AdamW", 100)
    assert (config.hyp.lr0, config.hyp.box) == (0.005, 0.02)


@pytest.mark.parametrize("setting", ["lr0", "lr0=fast", "colour=red", "epochs.x=1"])
def test_a_wrong_setting_is_named(setting: str) -> None:
    with pytest.raises(ConfigError):
        read_config(
            build_parser().parse_args(["train", "--data=d", "--out=o", "--epochs=1", "--set", setting])
        )


def test_models_are_files_or_public_names() -> None:
    assert read_architecture("yolov5s")[0] == read_architecture("yolov5s.yaml")[0] == "yolov5s.yaml"
    with pytest.raises(ArchitectureError):
        read_architecture("yolov99")


def test_a_first_interrupt_pauses_and_a_second_ends() -> None:
    control = InterruptControl()
    assert control.poll() is None
    signal.raise_signal(signal.SIGINT)
    assert control.poll() == "pause"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
