"""Small golden rules that belong to training: average, rates, early stopping, accumulation, gain scaling.

Other entries of the same cases are checked where their code is: resizing with the data, focal terms with the
loss.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from tests.fidelity.harness import Case, cases, fill_recipe
from yolocore.loss.detection import scale_gains
from yolocore.train.ema import Ema, decay_at
from yolocore.train.schedule import (
    accumulation,
    cosine_factor,
    linear_factor,
    scaled_weight_decay,
    trained_size,
    warmup_length,
)
from yolocore.train.stopping import EarlyStopping


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


def check_steps(result: dict[str, Any]) -> None:
    for batch, steps, decay in result["accumulate_wd"]:
        assert accumulation(batch, 64) == steps
        assert scaled_weight_decay(0.0005, batch, 64) == pytest.approx(decay)
    for epochs, batches, length in result["warmup_iters"]:
        assert warmup_length(epochs, batches, 100) == length
    for asked, size in result["check_img_size_s32_floor64"]:
        assert trained_size(asked, 32) == size
    for row in result["loss_gain_scaling"]:
        gains = scale_gains(0.05, 1.0, 0.5, row["nl"], row["nc"], row["imgsz"])
        assert list(gains) == pytest.approx([row["box"], row["obj"], row["cls"]])


@pytest.mark.parametrize("case", cases("small"), ids=str)
def test_small(case: Case) -> None:
    result = case.result
    check_ema(result["ema"])
    check_rates(result["lf"])
    check_early_stopping(result["early_stopping"])
    check_steps(result)
