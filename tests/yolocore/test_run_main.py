"""The core alone, as a terminal uses it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shapes import TINY_MODEL, write_shapes
from yolocore.__main__ import InterruptControl, build_parser, main, read_architecture, read_config
from yolocore.errors import ArchitectureError, ConfigError


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
