"""The parsers that meet what strangers send, each as a function of bytes that must not raise.

A refusal by the parser's own kind of error is an answer; whatever else comes out is a finding. Seeds are
small inputs that get far into each parser. It knows neither hypothesis nor atheris.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from worker.ingest.collect import collect
from worker.ingest.limits import Limits
from worker.ingest.names import clean, kind, label_path, unsafe_reason
from worker.ingest.report import RefusedError, Report
from yolocore.errors import CheckpointError, CoreError
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.arithmetic import SumError, work_out
from yolocore.spec.data_yaml import parse_data_yaml
from yolocore.spec.dataset import Manifest
from yolocore.spec.labels import parse_label_text
from yolocore.spec.start import head_problem
from yolocore.weights.archive import Archive
from yolocore.weights.pickled import load

LIMITS = Limits(max_total_bytes=8 << 20, max_entries=200, ratio_free_bytes=1 << 20, max_image_bytes=1 << 20)


@dataclass(frozen=True)
class Target:
    """A parser as a function of bytes, and inputs to begin from."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def archive(data: bytes) -> None:
    """Read an archive as an ingest's child does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive"
        path.write_bytes(data)
        with suppress(RefusedError):
            collect(path, Path(folder) / "images", LIMITS, Report())


def entry_name(data: bytes) -> None:
    """Judge and clean a name of an archive's entry."""
    text = data.decode("utf-8", "surrogateescape")
    if unsafe_reason(text, LIMITS) is None:
        name = clean(text)
        assert not name.startswith("/") and ".." not in name.split("/")
        kind(name)
        label_path(name)


def coco(data: bytes) -> None:
    """Read a COCO file."""
    from worker.ingest.coco import looks_like_coco, parse_coco

    looks_like_coco(data)
    parse_coco(data, "file.json", Report())


def voc(data: bytes) -> None:
    """Read a Pascal VOC file."""
    from worker.ingest.voc import parse_voc

    parse_voc(data)


def label_rows(data: bytes) -> None:
    """Read a label file, as it is and tidied."""
    parse_label_text(data, num_classes=3)
    parse_label_text(data, tidy=True)


def data_yaml(data: bytes) -> None:
    """Read the description of a dataset."""
    with suppress(CoreError):
        parse_data_yaml(data)


def manifest(data: bytes) -> None:
    """Read a manifest; what is taken has a text of its own that is read again to the same."""
    with suppress(CoreError):
        found = Manifest.parse(data)
        assert Manifest.parse(found.canonical_json()) == found


def model_yaml(data: bytes) -> None:
    """Read a model YAML."""
    with suppress(CoreError):
        parse_architecture(data)


def arithmetic(data: bytes) -> None:
    """Work out a sum of a model YAML."""
    with suppress(SumError):
        work_out(data.decode("latin-1"))


def pickled(data: bytes) -> None:
    """Read the pickle of a checkpoint."""
    with suppress(CheckpointError):
        load(data, lambda _: None)


def checkpoint(data: bytes) -> None:
    """Read a file of weights up to its tensors."""
    head_problem(data[:512])
    with tempfile.TemporaryDirectory() as folder, suppress(CheckpointError):
        path = Path(folder) / "weights.pt"
        path.write_bytes(data)
        with closing(Archive(path)) as opened:
            load(opened.pickle(), opened.check_storage)


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FILES = {"images/train/a.png": b"\x89PNG", "labels/train/a.txt": b"0 .5 .5 .2 .2\n", "data.yaml": b"nc: 1\n"}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 20}],
    "categories": [{"id": 7, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[1, 1, 9, 1, 9, 9.5]]},
    ],
}
VOC = (
    b"<annotation><filename>a.jpg</filename><size><width>40</width><height>20</height></size><object>"
    b"<name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>"
    b"<ymax>9</ymax></bndbox></object></annotation>"
)
MANIFEST = (
    b'{"images":[{"bytes":9,"height":20,"name":"a.jpg","rows":[[0,0.5,0.5,0.25,0.25]],"sha256":"'
    + b"a" * 64
    + b'","split":"train","width":40}],"names":["cat"],"v":1}'
)
MODEL = (
    b"nc: 2\nanchors: [[10,13, 16,30], [30,61, 62,45]]\ndepth_multiple: 1/3\nwidth_multiple: 0.25\n"
    b"backbone:\n  [[-1, 1, Conv, [64, 6, 2, 2]],\n   [-1, 3, C3, [2*64]],\n   [-1, 1, Conv, [128, 3, 2]]]\n"
    b"head:\n  [[[-1, 1], 1, Concat, [1]],\n   [[1, 2], 1, Detect, [nc, anchors]]]\n"
)
PLAIN = {"model": {"a.weight": [1.5, None, True, "x", (2, 3), {4}]}, "epoch": -1, "date": "2024"}

LABELS = (b"0 0.5 0.5 0.2 0.2\n", b"1 .1 .1 .9 .1 .5 .9\r\n1 .1 .1 .9 .1 .5 .9", b"2 1e400 nan")
DATA = (b"path: .\ntrain: ../train/images\nval: [a, b]\nnc: 2\nnames: {0: a, 1: b}\n", b"names: [x]")
NAMES = (b"images/train/a.png", b"../up", b"C:\\x\\y.txt", "\u00e4/\u732b.jpg".encode())
PICKLED = tuple(pickle.dumps(PLAIN, protocol) for protocol in range(6))

TARGETS: dict[str, Target] = {
    "archive": Target(
        archive, (_zip(FILES), _tar(FILES), gzip.compress(_tar(FILES), mtime=0), b"(\xb5/\xfd\0\0")
    ),
    "entry_name": Target(entry_name, NAMES),
    "coco": Target(coco, (json.dumps(COCO).encode(), json.dumps(COCO).encode("utf-16"))),
    "voc": Target(voc, (VOC, b"\xff\xfe" + VOC.decode().encode("utf-16-le"))),
    "label_rows": Target(label_rows, LABELS),
    "data_yaml": Target(data_yaml, DATA),
    "manifest": Target(manifest, (MANIFEST,)),
    "model_yaml": Target(model_yaml, (MODEL,)),
    "arithmetic": Target(arithmetic, (b"64*2", b"(1+2)/3 - -4 % 5", b"2**9//7")),
    "pickled": Target(pickled, PICKLED),
    "checkpoint": Target(checkpoint, (_zip({"archive/data.pkl": PICKLED[2], "archive/version": b"3\n"}),)),
}
