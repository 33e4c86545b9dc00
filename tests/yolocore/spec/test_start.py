"""What may be weights by its first bytes, and which tensors a network takes by name and shape."""

from __future__ import annotations

import pytest

from yolocore.spec.start import head_problem, match_tensors

WANTED = [
    ("model.0.conv.weight", (16, 3, 6, 6)),
    ("model.0.bn.num_batches_tracked", ()),
    ("model.24.anchors", (3, 3, 2)),
]
GIVEN = dict(WANTED)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"", "EMPTY"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS_POINTER"),
        (b"  <HTML>", "HTML"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "OLD_FORMAT"),
        (b"GIF89a", "FOREIGN"),
    ],
)
def test_what_cannot_be_weights_is_named(head: bytes, code: str) -> None:
    problem = head_problem(head)
    assert problem is not None and problem[0] == f"CHECKPOINT_{code}"


def test_a_zip_may_be_weights() -> None:
    assert head_problem(b"PK\x03\x04 and more") is None


def test_all_is_taken_but_anchors_unless_they_are_wanted_too() -> None:
    fit = match_tensors(WANTED, GIVEN)
    assert fit.is_start and (len(fit.taken), fit.total) == (2, 3)
    assert [item.as_dict() for item in fit.left_out] == [
        {
            "name": "model.24.anchors",
            "reason": "anchors are the model's",
            "given": [3, 3, 2],
            "wanted": [3, 3, 2],
        }
    ]
    assert match_tensors(WANTED, GIVEN, keep_anchors=False).left_out == ()


def test_every_reason_to_leave_one_out_is_told() -> None:
    wanted = [("a", (1,)), ("b", (2,)), ("c", (3,)), ("d", ())]
    fit = match_tensors(wanted, {"a": (1,), "b": (9,), "d": (), "e": (5,)}, not_finite={"a"})
    assert {item.name: item.reason for item in fit.left_out} == {
        "a": "not finite",
        "b": "shape",
        "c": "not in the file",
        "e": "unknown",
    }
    assert [str(item) for item in fit.left_out][1] == "b (shape [9] for [2])"


def test_counters_and_anchors_alone_are_no_start() -> None:
    given = {name: shape for name, shape in GIVEN.items() if "conv" not in name}
    assert not match_tensors(WANTED, given, keep_anchors=False).is_start
