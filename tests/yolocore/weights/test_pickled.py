"""Hostile pickles: nothing they name is run, nothing they ask for takes the machine."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from yolocore.errors import CheckpointError
from yolocore.weights.pickled import Record, Storage, load
from yolocore.weights.read import read_weights


def code_of(data: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(data, lambda storage: None)
    return caught.value.code


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__, open])
def test_calls_are_refused(function: Any, protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    data = pickle.dumps({"model": Calls(function, f"touch {canary}")}, protocol)
    assert code_of(data) == "CHECKPOINT_UNSAFE"
    assert not canary.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02ctorch\nload\n.",
        b"\x80\x02ctorch.hub\nload\n.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n.",
        b"\x80\x02cnumpy\ntesting.os.system\n.",
        b"\x80\x02\x82\x01.",  # the extension registry
        b"\x80\x02(ios\nsystem\n.",  # INST
        b"\x80\x02Pname\n.",  # a persistent id as text
        b"\x80\x05\x96" + struct.pack("<Q", 0) + b".",  # BYTEARRAY8
    ],
)
def test_other_names_and_instructions_are_refused(data: bytes) -> None:
    assert code_of(data) == "CHECKPOINT_UNSAFE"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02K\x01Q.",  # a number as persistent id
        b"\x80\x02K\x01)R.",  # calls a number
        b"\x80\x02h\x07.",  # an empty place
        b"\x80\x02K\x01}b.",  # fills a number
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",  # fills a function
        b"\x80\x02cmodels.yolo\nModel\n}b.",  # fills a class
        b"\x80\x02}))s.",  # a tuple as key
        b"\x80\x02" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",  # nested a million deep
        b"\x80\x02(K\x01e.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
    ],
)
def test_what_does_not_hold_together_is_damaged(data: bytes) -> None:
    assert code_of(data) in ("CHECKPOINT_DAMAGED", "CHECKPOINT_UNSAFE")


def test_a_large_memo_index_takes_no_memory() -> None:
    assert load(b"\x80\x02K\x05r\xff\xff\xff\x7f.", lambda storage: None) == 5


def test_objects_are_records() -> None:
    data = b"\x80\x02cmodels.yolo\nModel\n)\x81}X\x01\x00\x00\x00aK\x01sb."
    made = load(data, lambda storage: None)
    assert isinstance(made, Record)
    assert (made.kind, made.arguments, made.state) == ("models.yolo.Model", (), {"a": 1})


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def repacked(path: Path, change: dict[str, bytes]) -> Path:
    out = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change.get(name.partition("/")[2], old.read(name)))
    return out


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    return caught.value.code


def test_views_are_cut_out_of_their_storage(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float16).reshape(4, 6)
    content = OrderedDict(a=whole[1:3, ::2], b=whole.T, c=torch.tensor(3), d=torch.empty(0, 3))
    read = read_weights(saved(tmp_path / "w.pt", content)).tensors
    assert {key: value.tolist() for key, value in read.items()} == {
        key: value.tolist() for key, value in content.items()
    }
    assert read["a"].dtype is torch.float32 and read["c"].dtype is torch.int64


def test_sizes_must_be_honest(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", {"a": torch.zeros(8)})
    assert refusal(repacked(path, {"data/0": b"\0" * 31})) == "CHECKPOINT_DAMAGED"
    assert refusal(repacked(path, {"byteorder": b"big"})) == "CHECKPOINT_BYTE_ORDER"


def test_small_storages_do_not_become_large_tensors(tmp_path: Path) -> None:
    wide = torch.zeros(1).expand(1000, 1000, 1000)
    assert refusal(saved(tmp_path / "w.pt", {"a": wide})) == "CHECKPOINT_DAMAGED"
    shared = torch.zeros(100_000)
    many = {str(index): shared[index:] for index in range(100)}
    assert refusal(saved(tmp_path / "m.pt", many)) == "CHECKPOINT_TOO_LARGE"


def test_shared_lists_do_not_multiply(tmp_path: Path) -> None:
    nested: Any = [1]
    for _ in range(40):
        nested = [nested, nested]
    path = saved(tmp_path / "w.pt", {"model": {"a": torch.zeros(2)}, "yaml": {"deep": nested}})
    assert refusal(path) == "CHECKPOINT_TOO_LARGE"


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (b"\n<!DOCTYPE html><html>", "CHECKPOINT_HTML"),
        (b"<html>", "CHECKPOINT_HTML"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "CHECKPOINT_OLD_FORMAT"),
        (b"\x80\x02}.", "CHECKPOINT_FOREIGN"),
        (b"PK\x03\x04 and no more", "CHECKPOINT_DAMAGED"),
    ],
)
def test_other_files_are_named(start: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(start)
    assert refusal(path) == code
    assert refusal(tmp_path / "absent.pt") == "CHECKPOINT_MISSING"


def test_storages_are_reported() -> None:
    seen: list[Storage] = []
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3, dtype=torch.int64)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        load(archive.read(name), seen.append)
    assert seen == [Storage("0", "int64", 3)]
