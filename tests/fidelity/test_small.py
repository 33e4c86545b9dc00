"""Small golden rules, each through the code that trains: averages, rates, sizes, weights, paths, rounding.

An entry is recognised by how its name begins; what follows are its settings. The focal terms of the same
cases are checked with the loss.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.fidelity.harness import Case, assert_close, cases, deviation, fill_recipe
from worker.ingest.names import label_path as intake_label_path
from yolocore.__main__ import build_parser, run_folder
from yolocore.data.collate import Batch
from yolocore.data.draws import generator
from yolocore.data.files import rows_array
from yolocore.data.images import resize_image
from yolocore.data.place import MultiScale, to_images
from yolocore.data.scan import label_path
from yolocore.data.weights import class_counts, class_weights, image_weights
from yolocore.loss.detection import scale_gains
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.labels import detection_rows
from yolocore.spec.plan import plan_architecture
from yolocore.train.ema import Ema, decay_at
from yolocore.train.files import claim_folder, free_path
from yolocore.train.schedule import (
    accumulation,
    cosine_factor,
    linear_factor,
    scaled_weight_decay,
    trained_size,
    warmup_length,
)
from yolocore.train.stopping import EarlyStopping

CPU = torch.device("cpu")
ASKED = 64  # a power of two, so that any width is exactly a multiple of it
ONE_CONV = f"""
nc: 1
anchors: [[8, 8]]
width_multiple: {{multiple!r}}
channel_multiple: {{unit}}
backbone: [[-1, 1, Conv, [{ASKED}, 3, 2]]]
head: [[[0], 1, Detect, [nc, anchors]]]
"""


def check_ema(expected: dict[str, Any]) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))

    def fill(salt: str) -> None:
        fill_recipe({key: network.state_dict()[key] for key in expected["keys"]}, salt)

    fill("ema.")
    ema = Ema(network)
    assert ema.updates == expected["start_updates"]
    rows = {row[0]: row for row in expected["rows_step_updates_decay_sums"]}
    for step in range(1, max(rows) + 1):
        fill(f"ema.step{step}.")
        ema.update()
        if step in rows:
            _, updates, decay, *sums = rows[step]
            assert ema.updates == updates
            assert decay_at(updates) == pytest.approx(decay, rel=1e-9)
            state = ema.network.state_dict()
            assert [float(state[key].double().sum()) for key in expected["keys"]] == pytest.approx(
                sums, rel=1e-5, abs=1e-5
            )
    for update, decay in expected.get("decay_at", {}).items():
        assert decay_at(int(update)) == pytest.approx(decay, rel=1e-9)


def check_rates(expected: dict[str, list[float]]) -> None:
    for name, factors in expected.items():
        kind, epochs, final = name.split("_")
        shape = linear_factor if kind == "linear" else cosine_factor
        num_epochs = int(epochs[1:])
        for tenth, factor in enumerate(factors):  # at every tenth of the run
            epoch = tenth * num_epochs / 10
            assert shape(epoch, num_epochs, float(final[3:])) == pytest.approx(factor, rel=1e-9)


def check_early_stopping(traces: list[dict[str, Any]]) -> None:
    for trace in traces:
        stopping = EarlyStopping(trace["patience"])
        seen = []
        for epoch, fitness in enumerate(trace["fitness"]):
            stopping.update(epoch, fitness)
            seen.append([stopping.exhausted(epoch), stopping.may_end_next(epoch), stopping.best_epoch])
        assert seen == trace["rows_stop_possible_bestepoch"]


def check_accumulation(rows: list[list[float]]) -> None:
    for batch, steps, decay in rows:
        assert accumulation(int(batch), 64) == steps
        assert scaled_weight_decay(0.0005, int(batch), 64) == pytest.approx(decay)


def check_warmup(rows: list[list[float]]) -> None:
    for epochs, batches, length in rows:
        assert warmup_length(epochs, int(batches), 100) == length


def check_trained_sizes(settings: str, rows: list[list[int]]) -> None:
    stride, floor = (int(number) for number in re.findall(r"\d+", settings))
    assert floor == 2 * stride
    for asked, size in rows:
        assert trained_size(asked, stride) == size


def check_gains(rows: list[dict[str, float]]) -> None:
    for row in rows:
        gains = scale_gains(0.05, 1.0, 0.5, int(row["nl"]), int(row["nc"]), int(row["imgsz"]))
        assert list(gains) == pytest.approx([row["box"], row["obj"], row["cls"]])


def check_weights(expected: dict[str, Any]) -> None:
    maps = np.array(expected["maps"])
    rows = [
        rows_array([(cls, 0.5, 0.5, 0.1, 0.1) for cls in classes])
        for classes in expected["classes_per_image"]
    ]
    weights = class_weights(class_counts(rows, len(maps)))
    assert_close(weights / len(maps), expected["class_weights"], 1e-6, "class weights")
    assert_close(image_weights(rows, weights, maps), expected["image_weights"], 1e-6, "image weights")


def check_multi_scale(expected: dict[str, Any]) -> None:
    scales = MultiScale(expected["imgsz"], expected["gs"])
    assert list(scales.span) == expected["randrange"]
    assert scales.sizes == expected["sizes"]
    assert {scales.size_of(drawn) for drawn in range(*scales.span)} == set(expected["sizes"])
    rng = generator(0, 0, 0, "size")
    assert {scales.draw(rng) for _ in range(100)} <= set(expected["sizes"])
    for name, shapes in expected.items():
        if name.startswith("shape_"):
            height, width = (int(side) for side in re.findall(r"\d+", name))
            for size, shape in shapes.items():
                batch = Batch(
                    torch.zeros((1, 3, height, width), dtype=torch.uint8),
                    torch.zeros((0, 6)),
                    [],
                    resized_hw=scales.shape((height, width), int(size)),
                )
                assert list(batch.input_hw) == shape
                assert list(to_images(batch, CPU, torch.float32).shape[2:]) == shape


def check_resized(case: Case, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        width, height = row["wh"]
        if row["exceeds_img_size"] and deviation(case, "exceeds_img_size"):
            expected = [min(side, row["img_size"]) for side in row["hw"]]
        else:
            expected = row["hw"]
        image = np.zeros((height, width, 3), dtype=np.uint8)
        resized = resize_image(image, row["img_size"], area=not row["augment"])
        assert list(resized.shape[:2]) == expected, row


def check_label_paths(pairs: list[list[str]]) -> None:
    for image, label in pairs:
        assert str(label_path(Path(image))) == label
        assert intake_label_path(image) == label


def check_free_paths(expected: list[str]) -> None:
    """Claim three folders, then give one that is there, then ask beside a file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [claim_folder(folder / "exp") for _ in range(3)]
        given = build_parser().parse_args(["train", "--data=d", f"--out={found[0]}"])
        with run_folder(given.out, None) as out:
            found.append(out)
        (folder / "a.txt").touch()
        found.append(free_path(folder / "a.txt"))
        assert [path.relative_to(folder).as_posix() for path in found] == expected


def check_label_text(settings: str, expected: dict[str, Any]) -> None:
    height, width = (int(side) for side in settings.split("x"))
    texts = [
        detection_rows(expected["dets"], (height, width), with_score=with_score)
        for with_score in (True, False)
    ]
    assert "".join(texts) == expected["text_with_conf_then_without"]


def check_rounded_widths(settings: str, rows: list[list[float]]) -> None:
    for wide, rounded in rows:
        text = ONE_CONV.format(multiple=wide / ASKED, unit=int(settings))
        assert plan_architecture(parse_architecture(text)).layers[0].out_channels == rounded


CHECKS: dict[str, Callable[[Any], None]] = {
    "ema": check_ema,
    "lf": check_rates,
    "early_stopping": check_early_stopping,
    "class_weights": check_weights,
    "multi_scale": check_multi_scale,
    "accumulate_wd": check_accumulation,
    "warmup_iters": check_warmup,
    "loss_gain_scaling": check_gains,
    "img2label": check_label_paths,
    "increment_path": check_free_paths,
}
WITH_SETTINGS: dict[str, Callable[[str, Any], None]] = {
    "make_divisible_": check_rounded_widths,
    "check_img_size_": check_trained_sizes,
    "save_one_txt_": check_label_text,
}


def find_check(case: Case, name: str) -> Callable[[Any], None] | None:
    """Return what checks an entry, None if nothing does."""
    if name == "load_image_resize":
        return partial(check_resized, case)
    for beginning, check in WITH_SETTINGS.items():
        if name.startswith(beginning):
            return partial(check, name.removeprefix(beginning))
    return CHECKS.get(name)


@pytest.mark.parametrize("case", cases("small"), ids=str)
def test_small(case: Case) -> None:
    for name, value in case.result.items():
        check = find_check(case, name)
        assert check is not None, f"nothing checks {name}"
        check(value)
