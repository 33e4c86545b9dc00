"""The zip around a checkpoint: what kind of file it is, whether its sizes are honest, its numbers as tensors.

Must not know what the tensors mean. PyTorch is only loaded for the first tensor: most files that are refused
are refused before.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from yolocore.errors import CheckpointError
from yolocore.spec.start import HEAD_BYTES, head_problem
from yolocore.weights.pickled import STORAGES, Storage, TensorRecord

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_FILE_BYTES = 2 * 1024**3
MAX_PICKLE_BYTES = 8 * 1024**2
MAX_MEMBERS = 20_000
MAX_INFLATION = 4  # trained weights hardly shrink
ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}
ITEM_BYTES |= dict.fromkeys(set(STORAGES.values()) - set(ITEM_BYTES), 2)


class Archive:
    """An open checkpoint whose table of contents has been checked."""

    def __init__(self, path: Path) -> None:
        """Open; raises CheckpointError with a code of its own for each kind of file that is no checkpoint."""
        self._path = path
        size = _looked_at(path)
        self._left_bytes = size * MAX_INFLATION + 2**20  # many tensors may share one storage
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise self._refused("DAMAGED", "the checkpoint cannot be read; it is damaged") from error
        self._members = {info.filename: info for info in self._zip.infolist()}
        try:
            self._check_members(size)
            self._root = self._find_root()
        except CheckpointError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def pickle(self) -> bytes:
        """Return the bytes of data.pkl."""
        return self._read(f"{self._root}/data.pkl")

    def check_storage(self, storage: Storage) -> None:
        """Refuse a storage that is absent or of another size than the pickle says."""
        name = f"{self._root}/data/{storage.key}"
        if name not in self._members:
            raise self._refused("STORAGE_MISSING", "numbers are missing from the checkpoint", name)
        if self._members[name].file_size != storage.size * ITEM_BYTES[storage.dtype]:
            raise self._refused("DAMAGED", "numbers in the checkpoint have another size than it says", name)

    def tensor(self, record: TensorRecord) -> Tensor:
        """Return a tensor of its own memory; raises CheckpointError where it reaches beyond its storage."""
        import torch

        storage = record.storage
        name = f"{self._root}/data/{storage.key}"
        if 0 in record.shape:
            return torch.empty(record.shape, dtype=_dtype(storage))
        pairs = zip(record.shape, record.stride, strict=True)
        reach = record.offset + sum((length - 1) * stride for length, stride in pairs) + 1
        self._left_bytes -= storage.size * ITEM_BYTES[storage.dtype]
        if self._left_bytes < 0:
            raise self._refused("TOO_LARGE", "the checkpoint's tensors are far larger than the file")
        # A stride of 0 would make a small storage as large as it likes.
        if reach > storage.size or _count(record.shape) > storage.size:
            raise self._refused("DAMAGED", "a tensor reaches beyond its numbers", name)
        numbers = torch.frombuffer(bytearray(self._read(name)), dtype=_dtype(storage))
        return numbers.as_strided(record.shape, record.stride, record.offset).clone()

    def _read(self, name: str) -> bytes:
        info = self._members[name]
        try:
            with self._zip.open(info) as member:
                data = member.read(info.file_size + 1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            struct.error,
            EOFError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:
            raise self._refused("DAMAGED", "a part of the checkpoint cannot be read", name) from error
        if len(data) != info.file_size:
            raise self._refused("DAMAGED", "a part of the checkpoint has another size than it says", name)
        return data

    def _check_members(self, size: int) -> None:
        if len(self._members) > MAX_MEMBERS:
            raise self._refused(
                "TOO_LARGE", "the checkpoint has too many parts", value=str(len(self._members))
            )
        total = sum(info.file_size for info in self._zip.infolist())
        if total > size * MAX_INFLATION + 2**20 or total > MAX_FILE_BYTES:
            raise self._refused(
                "TOO_LARGE", "the checkpoint would grow far beyond its own size", value=f"{total} bytes"
            )

    def _find_root(self) -> str:
        roots = [name.removesuffix("/data.pkl") for name in self._members if name.endswith("/data.pkl")]
        if len(roots) != 1 or "/" in roots[0]:
            raise self._refused("NO_DATA", "the archive is not a checkpoint: it has no data.pkl of its own")
        root = roots[0]
        if f"{root}/constants.pkl" in self._members or any(
            name.startswith(f"{root}/code/") for name in self._members
        ):
            raise self._refused(
                "TORCHSCRIPT", "the file is an exported TorchScript program, not a checkpoint"
            )
        if self._members[f"{root}/data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise self._refused("TOO_LARGE", "the checkpoint's description is too large", f"{root}/data.pkl")
        order = f"{root}/byteorder"
        if order in self._members and self._members[order].file_size < 16 and self._read(order) != b"little":
            raise self._refused("BYTE_ORDER", "the checkpoint was written on a big-endian machine")
        return root

    def _refused(
        self, code: str, message: str, place: str | None = None, value: str | None = None
    ) -> CheckpointError:
        return _refused(self._path, code, message, place, value)


def _refused(
    path: Path, code: str, message: str, place: str | None = None, value: str | None = None
) -> CheckpointError:
    return CheckpointError(message, code=f"CHECKPOINT_{code}", place=place or path.name, value=value)


def _looked_at(path: Path) -> int:
    """Return the file's size in bytes once its first bytes are those of a zip."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise _refused(path, "MISSING", "there is no such checkpoint, or it cannot be opened") from error
    problem = head_problem(head)
    if problem is not None:
        raise CheckpointError(problem[1], code=problem[0], place=path.name)
    if size > MAX_FILE_BYTES:
        raise _refused(path, "TOO_LARGE", "the checkpoint is too large", value=f"{size} bytes")
    return size


def _dtype(storage: Storage) -> torch.dtype:
    import torch

    dtype = getattr(torch, storage.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
