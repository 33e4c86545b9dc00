"""The check of a GPU: its form, its parts in small on a CPU, and the whole of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_form import Section, absent, attempted, form, largest_difference, mebibytes, number
from benchmarks.gpu_runs import row_of
from benchmarks.gpu_steps import (
    Check,
    Kind,
    Speed,
    Waits,
    build,
    made_batch,
    numbers,
    speed,
    waits,
    within_memory,
)
from benchmarks.ours import CPU, read_data
from benchmarks.photographs import photographs
from yolocore.errors import OutOfMemoryError
from yolocore.spec.events import BatchDone, EpochDone, Log, LossParts, Warned
from yolocore.train.inputs import Data

LOSSES = LossParts(box=0.1, obj=0.2, cls=0.3)
SMALL = Kind("yolov5n", "fp32", 64, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return read_data(photographs(tmp_path_factory.mktemp("scenes"), quick=True).data_yaml)


# ---- the form


def test_the_form_has_tables_remarks_and_gaps() -> None:
    sections = [
        Section("Machine", ("what", "is"), [("GPU", "a | b")], ["a remark"]),
        absent("Several devices", "one GPU"),
    ]
    text = form(sections, device="cuda:0", quick=False)
    assert "`cuda:0`, full size." in text
    assert "| what | is |\n| --- | --- |\n| GPU | a \\| b |\n\n- a remark\n\n## Several devices" in text
    assert text.endswith("- not measured: one GPU\n")
    assert "say nothing" in form(sections, device="cpu", quick=True)


def test_a_part_that_fails_says_so() -> None:
    def fails() -> Section:
        raise ValueError("a\nb" + "x" * 1000)

    found = attempted("Loading", fails)
    assert found.title == "Loading"
    assert found.remarks[0].startswith("not measured: ValueError: a b")
    assert len(found.remarks[0]) < 400
    assert attempted("Loading", lambda: absent("Loading", "why")) == absent("Loading", "why")


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "not measured"), (math.nan, "not finite"), (0.123456, "0.1235"), (0.0, "0")]
)
def test_numbers_are_shown(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_sizes_are_shown() -> None:
    assert mebibytes(3 << 20) == "3 MiB"
    assert mebibytes(None) == "not measured"


def test_differences_are_relative_and_never_hide_what_is_not_finite() -> None:
    assert largest_difference([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    assert math.isnan(largest_difference([1.0, math.inf], [1.0, 2.0]))
    assert math.isnan(largest_difference([1.0], [math.nan]))


def test_a_run_is_told_by_its_events() -> None:
    batch = BatchDone(
        epoch=0, batch=1, batches=2, loss=LOSSES, lr=[0.1], images_per_s=12.34, amp_scale=1024.0
    )
    epoch = EpochDone(
        epoch=0,
        epochs=1,
        train=LOSSES,
        val=None,
        precision=0.5,
        recall=0.5,
        map50=0.456,
        map50_95=0.2,
        fitness=0.2,
        best=True,
        lr=[0.1],
        seconds=1.0,
    )
    said = [Warned(code="AMP_OFF", message="in fp32"), Log(message="batch 8: fits"), Log(message="else")]
    assert row_of("fp16", "succeeded", [batch, epoch, *said]) == (
        "fp16",
        "succeeded",
        "0.6",
        "0.456",
        "1024",
        "12.3",
        "AMP_OFF: in fp32; batch 8: fits",
    )
    broken = batch.model_copy(update={"loss": LossParts(box=None, obj=0.1, cls=0.1), "amp_scale": None})
    assert row_of("fp32", "stopped", [broken])[2:] == ("not finite", "-", "-", "12.3", "nothing")


# ---- the parts


def test_steps_begin_from_the_same_weights(data: Data) -> None:
    once, again = (numbers(data, SMALL, CPU, 1) for _ in range(2))
    assert once == again
    assert len(once.losses) == len(once.norms) == 1
    assert all(value > 0 and math.isfinite(value) for value in (*once.losses, *once.norms))
    assert once.islands == []


def test_a_step_waits_for_nothing(data: Data) -> None:
    found = waits(data, SMALL, CPU)
    assert found.num_calls > 500
    assert found.by_name == {}
    assert found.places is None


@pytest.mark.parametrize(
    "wait",
    [
        lambda values: float(values.sum()),
        lambda values: values[values > 0],
        lambda values: values.nonzero(),
        lambda values: values.masked_select(values > 0),
        lambda values: values.__setitem__(values > 0, 2.0),
    ],
)
def test_waiting_would_be_seen(wait: Callable[[torch.Tensor], Any]) -> None:
    values = torch.ones(3)
    seen: Any = Waits()
    with seen:
        wait(values)
        values[torch.tensor([0, 1])]  # by place, which needs no answer
    assert sum(seen.waits.values()) == 1


def test_layouts_are_as_asked(data: Data) -> None:
    batch = None
    for channels_last in (True, False):
        trainer, wiring = build(data, Kind("yolov5n", "fp32", 64, 2, channels_last), CPU)
        batch = batch or made_batch(wiring, 2)
        weights = max(trainer.network.parameters(), key=lambda weight: weight.numel() * (weight.dim() == 4))
        assert weights.is_contiguous(memory_format=torch.channels_last) == channels_last
        trainer.train_batch(batch)


def test_steps_are_timed(data: Data) -> None:
    found = speed(data, SMALL, CPU, warm=0, steps=1)
    assert found.images_per_s > 0
    assert found.allocated_bytes is None


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("too large", place="/batch"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_memory_that_does_not_suffice_is_told(error: Exception) -> None:
    def work() -> Speed:
        raise error

    assert within_memory(work, CPU) == "out of memory"


def test_other_failures_are_not_taken_for_it() -> None:
    def work() -> Speed:
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side"):
        within_memory(work, CPU)


def test_a_device_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cuda:99", "--out", str(tmp_path / "form.md")]) == 1
    assert "torch finds no cuda:99" in capsys.readouterr().out
    assert not (tmp_path / "form.md").exists()


def test_machine_is_described(tmp_path: Path) -> None:
    section = gpu_check.machine(Check(CPU, gpu_check.QUICK, tmp_path / "data.yaml", tmp_path))
    facts = dict((row[0], row[1]) for row in section.rows)
    assert facts["torch"].startswith(torch.__version__)
    assert re.match(r"\d{4}-\d\d-\d\d", facts["date"])


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "form.md"
    assert gpu_check.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    text = out.read_text()
    assert text in capsys.readouterr().out
    for title in gpu_check.PARTS:
        assert f"\n## {title}\n\n|" in text, title
    assert "equal to the bit" in text
    assert "LOOK AT IT" not in text
    assert "FAILED" not in text
    assert text.count("| succeeded |") == 5
