"""A job through the whole service really trains: its figures can be computed again from what it delivers.

Nothing here asks the service whether it trained. The loss is computed anew, on a batch of pictures read from
where they were before the upload, with weights downloaded over HTTP.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from api.client import Client
from tests.chaos.real_stack import RealStack
from tests.support.shapes import NAMES, TINY_MODEL, write_shapes
from yolocore.data.collate import collate
from yolocore.data.dataset import ValSamples
from yolocore.data.files import scan_yolo_folder
from yolocore.data.images import ImageStore
from yolocore.detector import load_detector
from yolocore.loss.detection import DetectionLoss, scale_gains, to_tensors
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.ops.assign import assign_targets
from yolocore.spec.config import TrainConfig, parse_config
from yolocore.train.checkpoint import Snapshot, load_checkpoint, load_into
from yolocore.train.inputs import plan_run, val_stride

NUM_VAL = 8
CONFIG: dict[str, Any] = {
    "epochs": 6,
    "imgsz": 64,
    "batch": 4,
    "nominal_batch": 4,
    "warmup_min_batches": 5,
    "optimizer": "Adam",
    "preset": "no-augmentation",
    "hyp": {"lr0": 0.005, "warmup_epochs": 1.0},
    "val": {"batch": NUM_VAL},
    "threads": 1,
    "seed": 11,
}
# Folding normalisation into convolutions rounds otherwise than leaving it, and so do fewer bits.
FOLDED, HALF = 1e-3, 2e-2


@dataclass(frozen=True)
class Trained:
    """What a finished job left, and where its pictures came from."""

    pictures: Path
    config: TrainConfig
    epochs: list[dict[str, Any]]
    delivered: dict[str, Any]
    final: Snapshot
    downloads: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("real")
    data_yaml = write_shapes(root / "shapes", num_train=32, num_val=NUM_VAL)
    with zipfile.ZipFile(root / "shapes.zip", "w") as archive:
        for path in sorted((root / "shapes").rglob("*.*")):
            archive.write(path, path.relative_to(root / "shapes"))
    stack = RealStack(root / "data")
    try:
        stack.ensure_up()
        with stack.client() as client:
            job, delivered = run_job(client, root)
            epochs = client.metrics(job)
        ((pointer,),) = stack.query("SELECT pointer FROM jobs WHERE id = ?", job)
        final = load_checkpoint(stack.folder / "jobs" / job / json.loads(pointer)["path"])
    finally:
        stack.end()
    yield Trained(data_yaml, parse_config(CONFIG), epochs, delivered, final, root)


def run_job(client: Client, root: Path) -> tuple[str, dict[str, Any]]:
    """Upload, train and download; return the job's id and the content of last.pt."""
    dataset = client.push_dataset(root / "shapes.zip", "shapes")
    assert client.wait_for_dataset(dataset.id, timeout_s=60).status == "ready"
    architecture = client.push_architecture(TINY_MODEL, "tiny")
    job = client.submit({"dataset": dataset.id, "architecture": architecture.id, "config": CONFIG})
    assert client.wait_for_job(job.id, timeout_s=120).status == "succeeded"
    found = {artifact.name: artifact for artifact in client.artifacts(job.id)}
    for name in ("best.pt", "best.onnx", "best.onnx.json"):
        client.download(job.id, found[name], root / name)
    content = torch.load(client.download(job.id, found["last.pt"], root / "last.pt"), weights_only=True)
    return job.id, dict(content)


def network_of(trained: Trained, state: dict[str, Tensor] | None) -> Network:
    """Return the network with this state, or as the run began, with the anchors that were trained with."""
    plan = plan_run(TINY_MODEL, name="tiny", num_classes=len(NAMES), imgsz=trained.config.imgsz)
    network = build_network(plan, seed=trained.config.seed)
    if state is not None:
        load_into(network, {key: value.to(torch.float32) for key, value in state.items()}, "state")
    anchors = trained.final.model[f"model.{len(network.model) - 1}.anchors"]
    network.head.anchors.copy_(anchors)
    return network.eval()


def losses(trained: Trained, network: Network) -> Tensor:
    """Return box, obj, cls on the batch of all validation pictures, as computed from the pictures' files."""
    _, splits, problems = scan_yolo_folder(trained.pictures)
    assert problems == []
    imgsz, hyp = trained.config.imgsz, trained.config.hyp
    store = ImageStore(splits["val"], imgsz, area=True)
    samples = ValSamples(splits["val"], store, imgsz, NUM_VAL, stride=val_stride(network.plan))
    assert samples.num_batches == 1
    batch = collate([samples.item(position) for position in samples.positions(0)])
    strides = [int(stride) for stride in network.strides]
    height, width = batch.input_hw
    matches = assign_targets(
        batch.targets.numpy(),
        network.head.anchors.detach().numpy(),
        [(height // stride, width // stride) for stride in strides],
        float(np.float32(hyp.anchor_t)),
    )
    gains = scale_gains(hyp.box, hyp.obj, hyp.cls, len(strides), len(NAMES), imgsz)
    loss = DetectionLoss(
        num_classes=len(NAMES),
        strides=strides,
        box=gains.box,
        obj=gains.obj,
        cls=gains.cls,
        cls_pw=hyp.cls_pw,
    )
    with torch.inference_mode():
        _, maps = network(batch.images.to(torch.float32) / 255)[:2]
        return loss(maps, to_tensors(matches))[1]


def test_the_losses_told_are_those_of_the_final_weights(trained: Trained) -> None:
    told = trained.epochs[-1]["val"]
    reported = torch.tensor([told["box"], told["obj"], told["cls"]])
    exact = losses(trained, network_of(trained, trained.final.ema))
    delivered = losses(trained, network_of(trained, trained.delivered["model"]))
    print(
        f"told {reported.tolist()}, from the checkpoint {exact.tolist()}, from last.pt {delivered.tolist()}"
    )
    assert torch.equal(exact, losses(trained, network_of(trained, trained.final.ema))), "the same again"
    torch.testing.assert_close(exact, reported, rtol=FOLDED, atol=1e-6)
    torch.testing.assert_close(delivered, reported, rtol=HALF, atol=1e-5)


def test_the_loss_is_lower_than_at_the_start(trained: Trained) -> None:
    start, end = (
        float(losses(trained, network_of(trained, state)).sum()) for state in (None, trained.final.ema)
    )
    print(f"loss on a fixed batch: {start:.4f} at the start, {end:.4f} at the end")
    assert end < 0.95 * start
    sums = [sum(row["train"].values()) for row in trained.epochs]
    assert sums[-1] < sums[0]


def test_every_trainable_tensor_has_moved(trained: Trained) -> None:
    start = dict(network_of(trained, None).named_parameters())
    moved = {name: not torch.equal(trained.final.model[name], tensor) for name, tensor in start.items()}
    assert len(moved) > 20
    assert [name for name, is_moved in moved.items() if not is_moved] == []
    assert [name for name, tensor in start.items() if torch.equal(trained.final.ema[name], tensor)] == []


def test_what_is_delivered_is_what_was_trained(trained: Trained) -> None:
    """last.pt is the average of the last checkpoint, in half precision; anchors stay exact."""
    delivered = trained.delivered["model"]
    assert delivered.keys() == trained.final.ema.keys()
    for name, tensor in trained.final.ema.items():
        assert torch.equal(delivered[name], tensor.to(delivered[name].dtype)), name


def test_the_onnx_file_of_a_job_computes_what_its_best_weights_do(trained: Trained) -> None:
    detector = load_detector(trained.downloads / "best.pt")
    images = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = detector.network(images)[0].numpy()
    session = onnxruntime.InferenceSession(str(trained.downloads / "best.onnx"))
    (given,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(given, expected, rtol=1e-3, atol=1e-2)
    report = json.loads((trained.downloads / "best.onnx.json").read_text())
    assert [item["ok"] for item in report["comparisons"]] == [True] * 3
    assert json.loads(report["metadata"]["names"]) == dict(zip("01", NAMES, strict=True))
