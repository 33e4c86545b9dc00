"""Reads a pickle as inert data: an interpreter of the few instructions a checkpoint needs.

A checkpoint of YOLOv5 pickles whole module objects. Here every instruction is ours and none of them imports
or calls what the file names: known tensor functions become descriptions, classes of a closed list become
records, anything else is refused by name. Must not know files, torch or networks.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from yolocore.errors import CheckpointError

UNSAFE = "CHECKPOINT_UNSAFE"
DAMAGED = "CHECKPOINT_DAMAGED"
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Classes that become records: nothing of theirs is looked up, so a name here is a name and no more.
RECORD_MODULES = re.compile(
    r"(models|utils|ultralytics|numpy|pathlib|torch\.nn\.modules)(\.\w+)*|torch\.nn\.parameter|_codecs"
)
RECORD_NAMES = {
    ("argparse", "Namespace"),
    ("torch", "Size"),
    ("torch", "device"),
    *(("torch", dtype) for dtype in STORAGES.values()),
}


class StorageKind(NamedTuple):
    """The element type of a storage."""

    dtype: str


class Storage(NamedTuple):
    """A run of numbers in the archive, by key."""

    key: str
    dtype: str
    size: int


class TensorRecord(NamedTuple):
    """A view into a storage; `offset`, `shape` and `stride` in elements, all checked to be whole numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class Record:
    """An object of a class that is not here: its name, what it was made with, and its state."""

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


class _Class(NamedTuple):
    kind: str


class _Function(NamedTuple):
    name: str


FUNCTIONS: dict[tuple[str, str], str] = {
    ("torch._utils", "_rebuild_tensor_v2"): "tensor",
    ("torch._utils", "_rebuild_parameter"): "parameter",
    ("collections", "OrderedDict"): "mapping",
    ("__builtin__", "set"): "set",
    ("builtins", "set"): "set",
}
_MARK = object()


def load(data: bytes, storage: Callable[[Storage], None]) -> Any:
    """Return the value of a pickle made of plain values, `TensorRecord` and `Record`.

    `storage` hears of every storage and may refuse it. Raises CheckpointError: CHECKPOINT_UNSAFE names what
    the file asked for, CHECKPOINT_DAMAGED is for everything that does not hold together.
    """
    try:
        return _Reader(storage).read(data)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError("the checkpoint cannot be read; it is damaged", code=DAMAGED) from error


class _Reader:
    def __init__(self, storage: Callable[[Storage], None]) -> None:
        self._storage = storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        for op, arg, _ in pickletools.genops(data):
            if op.name == "STOP":
                return self._stack.pop()
            if op.name in PUSHED:
                self._stack.append(arg)
            elif op.name in CONSTANTS:
                self._stack.append(CONSTANTS[op.name]())
            elif op.name in ACTIONS:
                ACTIONS[op.name](self, arg)
            elif op.name not in IGNORED:
                raise CheckpointError(
                    "the checkpoint holds an instruction that weights do not need; it was not read",
                    code=UNSAFE,
                    value=op.name,
                )
        raise ValueError("no end")

    def _since_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    # ---- instructions

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def tuple_of_marked(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) != count:
            raise IndexError("stack is too short")
        self._stack[-count:] = [items]

    def append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise TypeError("not a list")
        self._stack[-1].extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError("not a mapping")
        target.update(zip(_plain_keys(items[::2]), items[1::2], strict=True))

    def global_name(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        self._stack.append(_known(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("not a name")
        self._stack.append(_known(module, name))

    def persistent(self, _: Any) -> None:
        storage = _storage_of(self._stack.pop())
        self._storage(storage)
        self._stack.append(storage)

    def new_object(self, _: Any) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if type(kind) is not _Class or type(arguments) is not tuple:
            raise TypeError("not a class")
        self._stack.append(Record(kind.kind, arguments))

    def reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(arguments) is not tuple:
            raise TypeError("not arguments")
        if type(function) is _Class:
            self._stack.append(Record(function.kind, arguments))
        elif type(function) is _Function:
            self._stack.append(MAKERS[function.name](arguments))
        else:
            raise TypeError("not a function")

    def build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is Record:
            target.state = state
        elif type(target) is not dict:  # an ordered mapping's own attributes say nothing of weights
            raise TypeError("nothing to fill")


def _known(module: str, name: str) -> Any:
    if (module, name) in FUNCTIONS:
        return _Function(FUNCTIONS[module, name])
    if module == "torch" and name in STORAGES:
        return StorageKind(STORAGES[name])
    named = (module, name) in RECORD_NAMES or RECORD_MODULES.fullmatch(module)
    if named and re.fullmatch(r"\w+", name):
        return _Class(f"{module}.{name}")
    raise CheckpointError(
        "the checkpoint asks for something that weights do not need; nothing of it was run",
        code=UNSAFE,
        place=f"{module}.{name}"[:80],
    )


def _storage_of(reference: Any) -> Storage:
    if type(reference) is not tuple or len(reference) < 5 or reference[0] != "storage":
        raise TypeError("not a storage")
    _, kind, key, _, size = reference[:5]
    if type(kind) is not StorageKind or type(key) is not str or not re.fullmatch(r"\w{1,20}", key):
        raise TypeError("not a storage")
    return Storage(key, kind.dtype, _whole(size))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise ValueError("not a size")
    return value


def _plain_keys(keys: Sequence[Any]) -> list[str | int]:
    """Hashing a tuple that is nested a million deep ends a process, so keys are texts and numbers only."""
    if not all(type(key) in (str, int) for key in keys):
        raise TypeError("not a key")
    return list(keys)


def _tensor(arguments: tuple[Any, ...]) -> TensorRecord:
    storage, offset, shape, stride = arguments[:4]
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise TypeError("not a tensor")
    if len(shape) != len(stride) or len(shape) > 8:
        raise ValueError("not a shape")
    return TensorRecord(storage, _whole(offset), tuple(map(_whole, shape)), tuple(map(_whole, stride)))


def _parameter(arguments: tuple[Any, ...]) -> TensorRecord:
    if type(arguments[0]) is not TensorRecord:
        raise TypeError("not a tensor")
    return arguments[0]


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = list(arguments[0]) if arguments else []
    return dict(zip(_plain_keys([key for key, _ in pairs]), [value for _, value in pairs], strict=True))


def _set_of(arguments: tuple[Any, ...]) -> set[str | int]:
    return set(_plain_keys(arguments[0])) if arguments else set()


MAKERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "tensor": _tensor,
    "parameter": _parameter,
    "mapping": _mapping,
    "set": _set_of,
}
IGNORED = {"PROTO", "FRAME"}
PUSHED = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"} | {
    "BINBYTES",
    "SHORT_BINBYTES",
}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
ACTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "MEMOIZE": _Reader.put,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "MARK": _Reader.mark,
    "TUPLE": _Reader.tuple_of_marked,
    "TUPLE1": lambda reader, _: reader.tuple_of(1),
    "TUPLE2": lambda reader, _: reader.tuple_of(2),
    "TUPLE3": lambda reader, _: reader.tuple_of(3),
    "APPEND": _Reader.append,
    "APPENDS": _Reader.appends,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "GLOBAL": _Reader.global_name,
    "STACK_GLOBAL": _Reader.stack_global,
    "BINPERSID": _Reader.persistent,
    "NEWOBJ": _Reader.new_object,
    "REDUCE": _Reader.reduce,
    "BUILD": _Reader.build,
}
