"""A checkpoint whose parts contradict its table of contents is damaged, however its zip reader puts it."""

from __future__ import annotations

import io
import pickle
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from yolocore.errors import CheckpointError
from yolocore.weights.archive import Archive


def checkpoint() -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("archive/data.pkl", pickle.dumps({}, 2))
        packed.writestr("archive/version", b"3\n")
    return bytearray(buffer.getvalue())


@pytest.mark.parametrize(
    "spoiled",
    [
        {30: b"\x89"},  # another name
        {6: b"\x00\x08", 30: b"\x89"},  # a name that is said to be UTF-8 and is not
        {26: b"\xff\xff"},  # a name that goes on behind the end
    ],
)
def test_a_part_with_another_head_is_damaged(spoiled: dict[int, bytes], tmp_path: Path) -> None:
    content = checkpoint()
    for place, value in spoiled.items():
        content[place : place + len(value)] = value
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with closing(Archive(path)) as archive, pytest.raises(CheckpointError) as caught:
        archive.pickle()
    assert caught.value.code == "CHECKPOINT_DAMAGED"
