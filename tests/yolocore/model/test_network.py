"""The built network: seeds, modes, routing, folding, layouts, precision."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from yolocore.model.build import build_network
from yolocore.model.fuse import folded_copy, fuse
from yolocore.model.layers import join_norms
from yolocore.model.network import Network, routes
from yolocore.model.tta import predict_augmented
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.spec.words import WORDS
from yolocore.spec.zoo import zoo_text

EVERY_WORD = """\
nc: 2
activation: nn.ReLU()
anchors: [[8,9, 14,22], [33,40, 60,31]]
backbone:
  - [-1, 1, Focus, [16, 3]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 2, BottleneckCSP, [16]]
  - [-1, 1, DWConv, [16, 3, 1]]
  - [-1, 1, C3x, [16]]
  - [-1, 1, C3SPP, [16, [5, 9]]]
  - [-1, 1, C3TR, [16]]
  - [-1, 1, C3Ghost, [16]]
  - [-1, 2, Bottleneck, [16]]
  - [-1, 1, SPP, [16, [5, 9]]]
  - [-1, 1, Contract, [2]]
  - [-1, 1, Expand, [2]]
  - [-1, 1, CrossConv, [16, 3, 1, 1, 1.0, True]]
  - [-1, 1, MixConv2d, [16, [1, 3], 1, False]]
  - [-1, 1, GhostConv, [16, 3, 2]]
  - [-1, 1, GhostBottleneck, [16, 3, 2]]
  - [-1, 1, nn.BatchNorm2d, []]
  - [-1, 1, nn.Identity, []]
  - [-1, 1, nn.ConvTranspose2d, [16, 2, 2]]
  - [-1, 1, DWConvTranspose2d, [16, 2, 2]]
  - [-1, 1, TransformerBlock, [16, 32, 2, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [-1, 1, nn.MaxPool2d, [3, 2, 1]]
  - [-1, 1, nn.ZeroPad2d, [[0, 1, 0, 1]]]
  - [-1, 1, nn.MaxPool2d, [2, 1, 0]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [-1, 1, SPPF, [16, 5]]
  - [-1, 1, C3, [16]]
  - [-1, 1, Proto, [16, 8, 16]]
  - [[-1, 8], 1, Concat, [1]]
  - [[-1, 27], 1, {head}]
"""


def network_of(name: str, seed: int = 0, **keywords: Any) -> Network:
    return build_network(plan_architecture(parse_architecture(zoo_text(name)), **keywords), seed=seed)


@pytest.fixture(scope="module")
def nano() -> Network:
    return network_of("yolov5n", num_classes=3)


@pytest.mark.parametrize("head", ["Detect, [nc, anchors]", "Segment, [nc, anchors, 4, 8]"])
def test_every_word_is_planned_and_built_alike(head: str) -> None:
    text = EVERY_WORD.replace("{head}", head)
    assert all(f" {word}," in text for word in WORDS if word not in ("Detect", "Segment"))
    plan = plan_architecture(parse_architecture(text), imgsz=(64, 64))
    network = build_network(plan)
    state = network.state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == list(plan.state_entries)
    seen: dict[int, tuple[int, ...]] = {}
    for index, row in enumerate(network.model[:-1]):  # type: ignore[arg-type]
        row.register_forward_hook(lambda _m, _i, out, index=index: seen.update({index: tuple(out.shape[1:])}))
    output = network(torch.rand(2, 3, 64, 64))
    assert [seen[layer.index] for layer in plan.layers[:-1]] == [
        tuple(x.out_shapes[0]) for x in plan.layers[:-1]
    ]
    maps = output if head.startswith("Detect") else output[0]
    for raw, shape in zip(maps, plan.layers[-1].out_shapes, strict=True):
        assert tuple(raw.shape) == (2, 2, shape.h, shape.w, plan.num_outputs)
    kinds = {type(module) for module in network.modules()}
    assert nn.ReLU in kinds


def test_the_activation_belongs_to_one_model() -> None:
    leaky = network_of("hub/yolov5s-LeakyReLU")
    assert not any(isinstance(module, nn.SiLU) for module in leaky.modules())
    slopes = {module.negative_slope for module in leaky.modules() if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.1}
    assert not any(isinstance(module, nn.LeakyReLU) for module in network_of("yolov5n").modules())


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network_of("yolov5n", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = network_of("yolov5n", seed=5), network_of("yolov5n", seed=6)
    same = [torch.equal(a, b) for a, b in _pairs(first, again)]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in _pairs(first, other))
    assert all(int(value) == 0 for key, value in first.state_dict().items() if key.endswith("tracked"))


def _pairs(a: Network, b: Network) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(a.state_dict().values(), b.state_dict().values(), strict=True)


def test_modes_give_raw_maps_or_decoded_rows(nano: Network) -> None:
    x = torch.rand(1, 3, 64, 96)
    maps = nano.train()(x)
    assert [tuple(raw.shape) for raw in maps] == [(1, 3, 8, 12, 8), (1, 3, 4, 6, 8), (1, 3, 2, 3, 8)]
    decoded, raw = nano.eval()(x)
    assert decoded.shape == (1, 3 * (96 + 24 + 6), 8)
    assert len(raw) == 3
    assert bool((decoded[..., 4:] >= 0).all()) and bool((decoded[..., 4:] <= 1).all())


def test_an_untrained_cell_decodes_to_its_own_place_and_anchor(nano: Network) -> None:
    head = nano.head
    raw = torch.zeros(1, 3, 2, 4, 8)
    boxes = head._decode_level(2, raw)[0, :, :4].reshape(3, 2, 4, 4)
    assert boxes[1, 1, 3].tolist() == [3.5 * 32, 1.5 * 32, 156, 198]


def test_decoding_is_never_done_in_half_precision(nano: Network) -> None:
    maps = [torch.zeros(1, 3, 2, 2, 8, dtype=torch.float16) for _ in range(3)]
    assert nano.head.decode(maps).dtype == torch.float32


def test_priors_follow_class_frequencies() -> None:
    network = network_of("yolov5n", num_classes=2)
    for conv in network.head.m:
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    network.head.init_biases(torch.tensor([3.0, 1.0]))
    bias = network.head.m[0].bias.view(3, 7)  # type: ignore[operator, union-attr]
    assert bias[0, 5:].exp().tolist() == pytest.approx([0.75, 0.25])


def test_anchors_can_be_replaced_in_pixels(nano: Network) -> None:
    network = copy.deepcopy(nano)
    network.head.set_anchors_px([[(8, 16)] * 3] * 3)
    assert network.head.anchors[:, 0].tolist() == [[1, 2], [0.5, 1], [0.25, 0.5]]


def test_the_forward_drops_maps_after_their_last_use(nano: Network) -> None:
    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    network = copy.deepcopy(nano).eval()
    assert [index for index, route in enumerate(routes(network.plan)) if route.keep] == [
        4,
        6,
        10,
        14,
        17,
        20,
    ]
    for row in network.model:
        row.register_forward_hook(
            lambda _m, _i, out: held.append(weakref.ref(out)) if torch.is_tensor(out) else None
        )
        row.register_forward_pre_hook(lambda _m, _i: alive.append(sum(ref() is not None for ref in held)))
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 64))
    gc.collect()
    # Kept rows, the running map, and what a hook sees while a row runs.
    assert max(alive) <= 6
    assert all(ref() is None for ref in held)


def test_folding_keeps_the_outputs_and_the_original(nano: Network) -> None:
    network = copy.deepcopy(nano).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 64, 64))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.rand(2, 3, 64, 64)
    twin = folded_copy(network)
    assert network.training and not twin.training
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    assert not any(p.requires_grad for p in twin.parameters())
    with torch.no_grad():
        wanted, got = network.eval()(x)[0], twin(x)[0]
    assert torch.allclose(wanted, got, rtol=1e-4, atol=1e-3)
    again = fuse(twin)
    assert again is twin


def test_channels_last_goes_through_and_changes_nothing(nano: Network) -> None:
    x = torch.rand(2, 3, 64, 64)
    plain = copy.deepcopy(nano).train()
    last = copy.deepcopy(nano).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen: list[bool] = []
    last.model[4].register_forward_hook(
        lambda _m, _i, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    maps = last(x.contiguous(memory_format=torch.channels_last))
    assert seen == [True]
    assert all(raw.stride(-1) == 1 for raw in maps)
    for a, b in zip(plain(x), maps, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_grid_made_in_inference_mode_serves_gradients_later(nano: Network) -> None:
    network = copy.deepcopy(nano).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        network(x)
    network(x)[0].sum().backward()
    assert all(p.grad is not None for p in network.head.m.parameters())


def test_augmented_prediction_joins_three_views(nano: Network) -> None:
    network = copy.deepcopy(nano).eval()
    rows = predict_augmented(network, torch.rand(1, 3, 128, 128))
    # Three views of 128, 128 and 96 pixels, less the coarsest level of the first and the finest of the last.
    full, small = 3 * (256 + 64 + 16), 3 * (144 + 36 + 9)
    assert rows.shape[1] == (full - 3 * 16) + full + (small - 3 * 144)


def test_norms_joined_with_their_activations_train_alike() -> None:
    apart, joined = (network_of("yolov5n", num_classes=3).to(memory_format=torch.channels_last) for _ in "ab")
    num_plain = sum(isinstance(module, nn.BatchNorm2d) for module in joined.modules())
    assert join_norms(joined) == num_plain
    images = torch.rand(4, 3, 128, 128)
    for network in (apart, joined):
        sum((raw * raw).mean() for raw in network.train()(images)).backward()
    for (name, a), (_, b) in zip(apart.named_parameters(), joined.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert float((a.grad - b.grad).norm()) < 1e-3 * float(a.grad.norm()), name
    for (name, a), (_, b) in zip(apart.named_buffers(), joined.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_joined_norms_are_themselves_in_evaluation_when_frozen_and_in_other_precision() -> None:
    network = network_of("yolov5n", num_classes=3).to(memory_format=torch.channels_last)
    twin = copy.deepcopy(network)
    join_norms(network)
    images = torch.rand(2, 3, 64, 64)
    for each in (network, twin):
        each.train()
        each.model[:10].eval()  # a frozen part keeps its statistics
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(network(images), twin(images), strict=True))
    first = cast(nn.BatchNorm2d, network.get_submodule("model.0.bn"))
    last = cast(nn.BatchNorm2d, network.get_submodule("model.23.cv3.bn"))
    assert first.num_batches_tracked == 0 and last.num_batches_tracked == 1
    assert torch.equal(network.eval()(images)[0], twin.eval()(images)[0])
