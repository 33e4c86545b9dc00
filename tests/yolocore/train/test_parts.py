"""The small things the loop holds: groups, optimizers, average, precision, watch, early stopping, table."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from yolocore.spec.events import EpochDone, LossParts
from yolocore.train.ema import Ema, decay_at
from yolocore.train.optim import apply_point, build_optimizer, parameter_groups
from yolocore.train.precision import DTYPES, Precision, PrecisionName, resolve_precision
from yolocore.train.results import COLUMNS, results_csv
from yolocore.train.schedule import Point
from yolocore.train.stopping import EarlyStopping
from yolocore.train.watch import BadBatch, Watch

CPU = torch.device("cpu")


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 1, bias=False))


def test_groups_are_biases_decayed_weights_norm_weights() -> None:
    assert parameter_groups(small_network()) == (["0.bias", "1.bias"], ["0.weight", "3.weight"], ["1.weight"])


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_step_equals_the_textbook_one(name: str) -> None:
    # in training a bias before a norm has a gradient of mere rounding, which Adam makes a whole step of
    network, twin = small_network().eval(), small_network().eval()
    optimizer = build_optimizer(network, name=name, lr=0.01, momentum=0.9, weight_decay=0.1)  # type: ignore[arg-type]
    groups = [[dict(twin.named_parameters())[key] for key in keys] for keys in parameter_groups(twin)]
    settings = [
        {"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.0, 0.1, 0.0), strict=True)
    ]
    plain: torch.optim.Optimizer
    if name == "SGD":
        plain = torch.optim.SGD(settings, lr=0.01, momentum=0.9, nesterov=True, foreach=False)
    else:
        plain = getattr(torch.optim, name)(settings, lr=0.01, betas=(0.9, 0.999), foreach=False)
    images = torch.rand(2, 3, 8, 8)
    for _ in range(3):
        for module, stepper in ((network, optimizer), (twin, plain)):
            module(images).square().mean().backward()
            stepper.step()
            stepper.zero_grad()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_rates_reach_every_group_and_momentum_only_sgd() -> None:
    point = Point((0.3, 0.2, 0.1), 0.55, 1)
    sgd = build_optimizer(small_network(), name="SGD", lr=0.01, momentum=0.9, weight_decay=0)
    adam = build_optimizer(small_network(), name="Adam", lr=0.01, momentum=0.9, weight_decay=0)
    for optimizer in (sgd, adam):
        apply_point(optimizer, point)
        assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.2, 0.1]
    assert [group["momentum"] for group in sgd.param_groups] == [0.55] * 3
    assert adam.param_groups[0]["betas"] == (0.9, 0.999)


def test_average_follows_floats_and_leaves_integers() -> None:
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    ema = Ema(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    network[1].num_batches_tracked.add_(5)
    ema.update()
    decay = decay_at(1)
    for key, value in ema.network.state_dict().items():
        if value.is_floating_point():
            expected = decay * before[key] + (1 - decay) * network.state_dict()[key]
            torch.testing.assert_close(value, expected)
    assert ema.network[1].num_batches_tracked == 0
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert not ema.network.training


def test_auto_precision_is_full_on_a_processor() -> None:
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("auto", torch.device("cuda")) == "fp16"
    assert resolve_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_each_precision_trains_on_a_processor(name: PrecisionName) -> None:
    network = small_network()
    optimizer = build_optimizer(network, name="SGD", lr=0.05, momentum=0.9, weight_decay=0)
    precision = Precision(name, CPU)
    images = torch.rand(4, 3, 8, 8)
    losses = []
    for _ in range(12):
        with precision.autocast():
            output = network(images)
        assert output.dtype == DTYPES[name]
        loss = (output.float() - 1).square().mean()
        precision.backward(loss)
        norm = precision.step(optimizer, network.parameters(), 10.0)
        assert norm < 10
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    optimizer = build_optimizer(network, name="SGD", lr=0.05, momentum=0.9, weight_decay=0)
    precision = Precision("fp16", CPU)
    scale = precision.scale
    assert scale is not None
    precision.backward(network(torch.rand(1, 3, 8, 8)).sum() * math.inf)
    norm = precision.step(optimizer, network.parameters(), 10.0)
    assert not torch.isfinite(norm)
    assert precision.scale == scale / 2
    assert all(
        torch.equal(value, before[key]) for key, value in network.state_dict().items() if "weight" in key
    )
    again = Precision("fp16", CPU)
    again.load_state_dict(precision.state_dict())
    assert again.scale == scale / 2


def test_a_first_step_that_is_skipped_leaves_the_momentum_at_rest() -> None:
    fresh = [torch.full((64, 64, 3, 3), 7.7) for _ in range(8)]  # what the allocator hands out next
    del fresh
    network = nn.Sequential(nn.Conv2d(64, 64, 3, bias=False), nn.BatchNorm2d(64))
    optimizer = build_optimizer(network, name="SGD", lr=0.01, momentum=0.9, weight_decay=0)
    precision = Precision("fp16", CPU)
    before = copy.deepcopy(dict(network.named_parameters()))
    precision.backward(network(torch.rand(2, 64, 8, 8)).sum() * math.inf)
    precision.step(optimizer, network.parameters(), 10.0)
    for parameter in network.parameters():
        assert torch.count_nonzero(optimizer.state[parameter]["momentum_buffer"]) == 0
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])


def test_watch_means_a_window_and_an_epoch() -> None:
    watch = Watch(Precision("fp32", CPU))
    watch.add(0, torch.tensor([1.0, 2.0, 3.0]), ["a.jpg"])
    watch.add(1, torch.tensor([3.0, 2.0, 1.0]), ["b.jpg", "c.jpg"])
    window = watch.read()
    assert (window.losses, window.num_batches, window.num_images) == ((2.0, 2.0, 2.0), 2, 3)
    watch.add(2, torch.tensor([5.0, 5.0, 5.0]), ["d.jpg"])
    assert watch.read().losses == (5.0, 5.0, 5.0)
    assert watch.epoch_means() == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_loss_that_is_not_finite_names_the_first_bad_batch(precision: PrecisionName) -> None:
    watch = Watch(Precision(precision, CPU))
    watch.add(7, torch.tensor([1.0, 2.0, 3.0]), ["fine.jpg"])
    watch.add(8, torch.tensor([1.0, math.nan, 3.0]), ["bad.jpg", "worse.jpg"])
    watch.add(9, torch.full((3,), math.inf), ["later.jpg"])
    with pytest.raises(BadBatch) as caught:
        watch.read()
    assert (caught.value.counter, caught.value.cause) == (8, "loss")
    assert caught.value.images == ["bad.jpg", "worse.jpg"]
    watch.begin_window()
    assert watch.read().num_batches == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_that_are_not_finite_are_bad_without_a_scaler(precision: PrecisionName) -> None:
    watch = Watch(Precision(precision, CPU))
    watch.add_step(3, torch.tensor(math.nan))
    watch.add(3, torch.tensor([1.0, 2.0, 3.0]), ["steep.jpg"])
    watch.add(4, torch.full((3,), math.nan), ["next.jpg"])
    with pytest.raises(BadBatch) as caught:
        watch.check()
    assert (caught.value.counter, caught.value.cause) == (3, "gradients")


def scaled(scale: float) -> Precision:
    """Return fp16 whose scaler stands at that scale."""
    precision = Precision("fp16", CPU)
    precision.load_state_dict({**precision.state_dict(), "scale": scale})
    precision.backward(torch.zeros((), requires_grad=True))
    return precision


def test_with_a_scaler_overflows_are_counted_and_a_finite_step_ends_a_row() -> None:
    watch = Watch(scaled(32768.0))
    for counter in range(40):
        watch.add(counter, torch.ones(3), [f"{counter}.jpg"])
        watch.add_step(counter, torch.tensor(1.0 if counter % 20 == 19 else math.nan))
    assert watch.read().skipped == 38 and watch.skips == (38, 0)


def test_twenty_skipped_steps_in_a_row_are_bad_at_the_twentieth() -> None:
    watch = Watch(scaled(32768.0))
    watch.skips = (7, 3)
    for counter in range(30):
        watch.add(counter, torch.ones(3), [f"{counter}.jpg"])
        watch.add_step(counter, torch.tensor(math.inf))
    assert watch.skips == (37, 33)
    with pytest.raises(BadBatch, match="in a row") as caught:
        watch.read()
    assert (caught.value.counter, caught.value.cause) == (16, "streak")
    assert caught.value.images == ["16.jpg"]


def test_a_scale_under_one_is_bad_at_once() -> None:
    watch = Watch(scaled(0.5))
    watch.add_step(4, torch.tensor(math.nan))
    watch.add(4, torch.ones(3), ["a.jpg"])
    with pytest.raises(BadBatch) as caught:
        watch.check()
    assert (caught.value.counter, caught.value.cause) == (4, "streak")
    assert Watch(scaled(1.0)).read().scale == 1.0


def test_a_scaler_begins_again_and_gradients_under_way_come_along() -> None:
    precision = scaled(0.25)
    weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    weights[0].grad = torch.tensor([0.25, 0.5, 1.0])
    precision.restart(weights)
    assert precision.scale == 65536.0
    assert torch.equal(weights[0].grad, torch.tensor([65536.0, 131072.0, 262144.0]))
    precision.fall_back(weights)
    assert torch.equal(weights[0].grad, torch.tensor([1.0, 2.0, 4.0]))
    assert precision.state_dict() == {}
    assert (precision.name, precision.fell_back) == ("fp32", True)
    with precision.autocast():
        assert nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_patience_zero_never_ends_a_run() -> None:
    stopping = EarlyStopping(0)
    stopping.update(0, 0.5)
    assert not stopping.exhausted(1000) and not stopping.may_end_next(1000)


def row(epoch: int) -> EpochDone:
    return EpochDone(
        epoch=epoch,
        epochs=2,
        train=LossParts(box=0.142472, obj=0.0328189, cls=None),
        val=LossParts(box=0.12597, obj=0.027044, cls=0.02344),
        precision=0,
        recall=0,
        map50=0.5,
        map50_95=0.25,
        fitness=0.275,
        best=True,
        lr=[0.097232, 0.0002325, 0.0002325],
        seconds=1,
    )


def test_table_has_fields_of_twenty_characters() -> None:
    lines = results_csv([row(0), row(1)]).splitlines()
    assert [name.strip() for name in lines[0].split(",")] == list(COLUMNS)
    fields = lines[2].split(",")
    assert all(len(field) == 20 for field in fields)
    assert [field.strip() for field in fields[:4]] == ["1", "0.14247", "0.032819", "nan"]
    assert fields[12].strip() == "0.0002325"
