"""Files for other programs: each computes what its source does, says what it is, or does not appear."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.support.shapes import TINY_MODEL
from yolocore.errors import ConfigError, ExportError
from yolocore.model.build import build_network
from yolocore.model.deploy import Deployed
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.weights.check import SINGLE, compare_detections, compare_rows, probes
from yolocore.weights.export import Format, Shape, _compared, export
from yolocore.weights.onnx_nms import Suppression


def lively_network(seed: int = 0) -> nn.Module:
    """Return a network whose scores differ widely, as those of a trained one do."""
    network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=3), seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for conv in network.head.m:
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=rng))
            conv.bias.zero_()
    return Deployed(network)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return lively_network()


@pytest.mark.parametrize("size_hw", [(64, 64), (96, 32)])
def test_a_deployed_network_computes_what_the_network_does(size_hw: tuple[int, int]) -> None:
    network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=3)).eval()
    images = torch.rand(2, 3, *size_hw)
    with torch.no_grad():
        expected, _ = network(images)
        given = Deployed(network).train()(images)  # exporters set modes as they like
        half = Deployed(network, half=True)(images)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert half.dtype == torch.float32 and (half - expected).abs().max() < 1


@pytest.mark.parametrize(
    ("kind", "dynamic", "suppression"),
    [
        ("onnx", False, None),
        ("onnx", True, None),
        ("onnx", True, Suppression()),
        ("onnx", False, Suppression(conf_thres=0.1, iou_thres=0.2, max_det=7, agnostic=True)),
        ("torchscript", False, None),
        ("torchscript", True, None),
    ],
)
def test_a_file_is_compared_with_its_source(
    kind: Format, dynamic: bool, suppression: Suppression | None, module: nn.Module, tmp_path: Path
) -> None:
    picture = ("a.jpg", np.random.default_rng(5).random((2, 3, 64, 64), np.float32))
    written = export(
        module,
        tmp_path / f"best.{kind}",
        kind=kind,
        shape=Shape(2, (64, 64), dynamic=dynamic),
        metadata={"names": {"0": "a"}, "stride": "16"},
        suppression=suppression,
        pictures=[picture],
    )
    report = json.loads((tmp_path / f"best.{kind}.json").read_text())
    assert report == written.report and report["size_bytes"] == written.path.stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"best.{kind}", f"best.{kind}.json"]
    assert report["metadata"] == {"names": '{"0": "a"}', "stride": "16"}
    assert all(item["ok"] and item["unmatched"] == 0 for item in report["comparisons"])
    rows = [item for item in report["comparisons"] if "above" not in item["probe"]]
    assert [item["probe"] for item in rows] == ["noise", "scenery"] * (1 + dynamic) + ["a.jpg"]
    assert {tuple(item["shape"]) for item in rows} >= {(2, 3, 64, 64)} | (
        {(3, 3, 96, 32)} if dynamic else set()
    )
    assert max(item["box_max_abs_px"] for item in rows) < 0.01
    found = [item for item in report["comparisons"] if "above" in item["probe"]]
    assert (sum(item["rows"] for item in found) > 50) == (suppression is not None)


def test_a_runtime_can_ask_for_other_thresholds(module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    export(
        module, path, kind="onnx", shape=Shape(1, (64, 64)), metadata={"imgsz": 64}, suppression=Suppression()
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"imgsz": "64"}
    images = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    some = session.run(None, {"images": images})[0]
    more = session.run(["detections"], {"images": images, "conf_thres": np.array([0.01], np.float32)})[0]
    two = session.run(["detections"], {"images": images, "max_det": np.array([2], np.int64)})[0]
    assert len(two) <= 2 * 3 and 0 < len(some) < len(more)
    assert (some[:, 5] > 0.25).all() and some.shape[1] == 7
    assert b"site-packages" not in path.read_bytes() and str(Path.cwd()).encode() not in path.read_bytes()


class Growing(nn.Module):
    """Computes something else each time; a trace keeps the first."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.flatten(2).transpose(1, 2).repeat(1, 1, 3)[..., :7] * self.calls


class Unwritable(nn.Module):
    """Refuses to be traced."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise ValueError("not like this")
        return images


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize(
    ("source", "message"), [(Growing(), "something else"), (Unwritable(), "not like this")]
)
def test_what_is_not_its_source_does_not_appear(
    kind: Format, source: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(source, tmp_path / "a", kind=kind, shape=Shape(1, (8, 8)), metadata={})
    assert not list(tmp_path.iterdir())


def test_a_form_that_contradicts_itself_is_refused(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Shape(1, (64, 64))
    with pytest.raises(ConfigError, match="onnx files only"):
        export(
            module, tmp_path / "a", kind="torchscript", shape=shape, metadata={}, suppression=Suppression()
        )
    with pytest.raises(ConfigError, match="from 12 to 20"):
        export(module, tmp_path / "a", kind="onnx", shape=shape, metadata={}, opset=9)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"needs onnxruntime: .*trainshed\[export\]"):
        export(module, tmp_path / "a", kind="onnx", shape=shape, metadata={})


def test_an_opset_of_long_ago_serves_old_runtimes(module: nn.Module, tmp_path: Path) -> None:
    written = export(
        module, tmp_path / "a.onnx", kind="onnx", shape=Shape(1, (64, 64)), metadata={}, opset=12
    )
    assert onnx.load(str(written.path)).opset_import[0].version == 12


ROW = np.array([[[10, 20, 5, 5, 0.5, 0.9]]], np.float32)


@pytest.mark.parametrize(
    ("place", "by", "ok"),
    [(0, 0.005, True), (0, 0.1, False), (4, 5e-5, True), (5, 0.01, False), (2, np.nan, False)],
)
def test_rows_may_differ_by_rounding_only(place: int, by: float, ok: bool) -> None:
    other = ROW.copy()
    other[0, 0, place] += by
    assert compare_rows("x", (1,), ROW, other, SINGLE).ok == ok
    assert not compare_rows("x", (1,), ROW, other[:, :, :5], SINGLE).ok


def test_detections_are_compared_in_any_order() -> None:
    own = np.array([[0, 1, 2, 3, 4, 0.9, 1], [0, 5, 6, 7, 8, 0.8, 0], [1, 1, 2, 3, 4, 0.9, 1]], np.float32)
    assert compare_detections("x", (1,), own, own[::-1], SINGLE).unmatched == 0
    moved = own + np.array([0, 0, 0, 0, 0, 0.1, 0], np.float32)
    wrong = compare_detections("x", (1,), own, moved, SINGLE)
    assert (wrong.unmatched, wrong.ok) == (6, False)
    assert compare_detections("x", (1,), own[:0], own[:0], SINGLE).ok


def test_the_same_pictures_each_time() -> None:
    first, second = (list(probes([(1, 3, 32, 64)])) for _ in range(2))
    for (name, image), (_, again) in zip(first, second, strict=True):
        assert np.array_equal(image, again), name
        assert image.dtype == np.float32 and 0 <= image.min() < image.max() <= 1


def test_a_file_that_onnxruntime_refuses_is_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ExportError, match="the onnx file cannot be run"):
        _compared(nn.Identity(), "onnx", path, [], half=False, suppression=None)
