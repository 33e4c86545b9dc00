"""The grammar of model YAMLs: what is read, what is refused, where, and with which words."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolocore.errors import ArchitectureError, Problem
from yolocore.spec.architecture import Architecture, parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.spec.words import WORDS, Activation, ArgumentError, parse_activation
from yolocore.spec.zoo import zoo_text

TINY = """\
nc: 3
depth_multiple: 0.5
width_multiple: 0.5
anchors: [[5,6, 8,14], [16,16, 20,30]]
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 3, C3, [32]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, SPPF, [32, 5]]
  - [[1, 3], 1, Detect, [nc, anchors]]
"""


def problems(text: str, **plan: int) -> tuple[Problem, ...]:
    """Return why a text is refused."""
    with pytest.raises(ArchitectureError) as caught:
        plan_architecture(parse_architecture(text), **plan)
    return caught.value.problems


def changed(old: str, new: str) -> str:
    assert old in TINY
    return TINY.replace(old, new)


def test_rows_and_keys_are_read() -> None:
    arch = parse_architecture(TINY, source="tiny.yaml")
    assert (arch.nc, arch.depth_multiple, arch.width_multiple, arch.ch) == (3, 0.5, 0.5, 3)
    assert arch.anchors == ((5, 6, 8, 14), (16, 16, 20, 30))
    assert (len(arch.rows), arch.num_backbone_rows) == (5, 3)
    first, head = arch.rows[0], arch.rows[-1]
    assert (first.word, first.sources, first.line, first.column) == ("Conv", -1, 6, 5)
    assert first.args == {"c2": 16, "k": 3, "s": 2, "p": None, "g": 1, "d": 1, "act": True}
    assert head.sources == (1, 3)
    assert arch.text == TINY


def test_a_missing_key_has_its_default_and_an_unknown_one_is_a_warning() -> None:
    arch = parse_architecture(changed("depth_multiple: 0.5\n", "deph_multiple: 0.5\n"))
    assert arch.depth_multiple == 1.0
    (warning,) = arch.warnings
    assert (warning.code, warning.line, warning.value) == ("UNUSED_KEY", 2, "deph_multiple")
    assert "depth_multiple" in warning.message


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "row"),
    [
        ("nc: 3", "nc: true", "BAD_VALUE", 1, None),
        ("nc: 3", "nc: 100000", "BAD_VALUE", 1, None),
        ("width_multiple: 0.5", "width_multiple: big", "BAD_VALUE", 3, None),
        ("nc: 3", "nc: 3\nactivation: nn.SiLU().eval()", "BAD_ACTIVATION", 2, None),
        ("nc: 3", "nc: 3\ninplace: 1", "BAD_VALUE", 2, None),
        ("[5,6, 8,14]", "[5,6, 8]", "BAD_ANCHORS", 4, None),
        ("[5,6, 8,14]", "[5,6, 8,-14]", "BAD_ANCHORS", 4, None),
        ("[5,6, 8,14]", "[5,6, 8,x]", "BAD_ANCHORS", 4, None),
        ("[[5,6, 8,14], [16,16, 20,30]]", "0", "BAD_ANCHORS", 4, None),
        ("[[5,6, 8,14], [16,16, 20,30]]", "[[5,6, 8,14]]", "LEVEL_COUNT", 11, 4),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Conv]", "BAD_ARGUMENT", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1]", "BAD_ROW", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Conv, 16]", "BAD_ARGUMENT", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, [Conv], [16]]", "UNKNOWN_MODULE", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Classify, [16]]", "UNKNOWN_MODULE", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 0, Conv, [16, 3, 2]]", "BAD_NUMBER", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-2, 1, Conv, [16, 3, 2]]", "BAD_FROM", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[true, 1, Conv, [16, 3, 2]]", "BAD_FROM", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[[-1], 1, Conv, [16, 3, 2]]", "BAD_FROM", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Conv, [{a: 1}, 3, 2]]", "BAD_ARGUMENT", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Conv, [16, 3, 2, -1]]", "BAD_ARGUMENT", 6, 0),
        ("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Conv, [16, 3, 2, 1, 5]]", "BAD_SHAPE", 6, 0),
        ("[-1, 3, C3, [32]]", "[-1, 3, C3, [32, maybe]]", "BAD_ARGUMENT", 7, 1),
        ("[-1, 3, C3, [32]]", "[-1, 3, Bottleneck, [32]]", "BAD_CHANNELS", 7, 1),
        ("[-1, 3, C3, [32]]", "[-1, 1, GhostBottleneck, [32]]", "BAD_SHAPE", 7, 1),
        ("[-1, 3, C3, [32]]", "[-1, 1, Concat, [1]]", "BAD_FROM", 7, 1),
        ("[-1, 3, C3, [32]]", "[[-1, 0], 2, Concat, [1]]", "BAD_NUMBER", 7, 1),
        ("[-1, 3, C3, [32]]", "[-1, 1, nn.MaxPool2d, [2, 2, 2]]", "BAD_SHAPE", 7, 1),
        ("[-1, 3, C3, [32]]", "[-1, 1, nn.Upsample, [64, 2, nearest]]", "BAD_ARGUMENT", 7, 1),
        ("[-1, 3, C3, [32]]", "[-1, 1, nn.Upsample, [None, 2, cubic]]", "BAD_ARGUMENT", 7, 1),
        ("[-1, 3, C3, [32]]", "[-1, 1, nn.ReLU, []]", "UNKNOWN_MODULE", 7, 1),
        ("[-1, 1, SPPF, [32, 5]]", "[-1, 1, SPPF, [32, 4]]", "BAD_ARGUMENT", 10, 3),
        ("[nc, anchors]", "[4, anchors]", "CLASS_COUNT", 11, 4),
        ("[nc, anchors]", "[nc, anchor]", "BAD_ARGUMENT", 11, 4),
        ("[[1, 3], 1, Detect, [nc, anchors]]", "[3, 1, Conv, [8]]", "HEAD_MISSING", 11, 4),
    ],
)
def test_a_mistake_is_named_with_code_line_and_row(
    old: str, new: str, code: str, line: int, row: int | None
) -> None:
    found = problems(changed(old, new))
    assert (found[0].code, found[0].line, found[0].row) == (code, line, row)


def test_several_mistakes_are_found_at_once() -> None:
    text = TINY.replace("Conv, [16, 3, 2]", "Convv, [16]").replace("SPPF, [32, 5]", "SPPF, [-1]")
    with pytest.raises(ArchitectureError) as caught:
        parse_architecture(text, source="mine.yaml")
    assert [problem.line for problem in caught.value.problems] == [6, 10]
    assert caught.value.message.startswith(
        "mine.yaml: backbone[0]: unknown module 'Convv'; did you mean Conv?"
    )
    assert caught.value.place == "line 6, row 0"


def test_expressions_are_refused_by_name_and_never_run() -> None:
    (problem,) = problems(changed("[32, 5]", "[\"__import__('os').getcwd()\"]"))
    assert "expressions are not accepted" in problem.message


def test_quoted_numbers_and_none_are_what_they_say() -> None:
    arch = parse_architecture(changed("Conv, [16, 3, 2]", "Conv, ['16', '3', 2, 'None', 1, 1, 'True']"))
    assert arch.rows[0].args == parse_architecture(TINY).rows[0].args


def test_anchors_may_stand_in_the_head_row() -> None:
    arch = parse_architecture(changed("[nc, anchors]", "[3, [[1,2, 3,4], [5,6, 7,8]]]"))
    assert arch.anchors == ((1, 2, 3, 4), (5, 6, 7, 8))


@pytest.mark.parametrize(
    ("text", "activation"),
    [
        ("nn.SiLU()", Activation("nn.SiLU")),
        ("nn.LeakyReLU(0.1)", Activation("nn.LeakyReLU", 0.1)),
        ("nn.LeakyReLU(0.1, inplace=True)", Activation("nn.LeakyReLU", 0.1)),
        ("nn.LeakyReLU()", Activation("nn.LeakyReLU", 0.01)),
        ("nn.ReLU(inplace=True)", Activation("nn.ReLU")),
        ("nn.Hardswish", Activation("nn.Hardswish")),
    ],
)
def test_activations_come_from_a_list(text: str, activation: Activation) -> None:
    assert parse_activation(text) == activation


@pytest.mark.parametrize("text", ["ReLU()", "nn.Linear(3)", "nn.ReLU(0.1)", "nn.SiLU()()", "exit()", 3])
def test_other_activations_are_refused(text: object) -> None:
    with pytest.raises(ArgumentError):
        parse_activation(text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_row_is_planned_or_refused(data: st.DataObject) -> None:
    """Whatever stands in a row, the outcome is a plan or an ArchitectureError, and soon."""
    value = st.integers(-3, 70) | st.booleans() | st.none() | st.floats(-2, 4) | st.sampled_from(["nc", "x"])
    argument = value | st.lists(value, max_size=4)
    word = data.draw(st.sampled_from(sorted(WORDS)))
    row = [-1, data.draw(st.integers(1, 4)), word, data.draw(st.lists(argument, max_size=6))]
    shown = repr(row).replace("None", "null")
    text = changed("[-1, 3, C3, [32]]", shown)
    try:
        plan = plan_architecture(parse_architecture(text))
    except ArchitectureError as error:
        assert all(problem.message for problem in error.problems)
    else:
        assert plan.num_parameters > 0


def test_nothing_here_loads_torch_or_opencv() -> None:
    code = (
        "import sys, yolocore.spec.plan, yolocore.spec.zoo;"
        "print([name for name in ('torch', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_zoo_name_is_found_with_and_without_folder() -> None:
    assert zoo_text("yolov5-p2.yaml") == zoo_text("hub/yolov5-p2")
    with pytest.raises(KeyError):
        zoo_text("yolov9")
    assert isinstance(parse_architecture(zoo_text("yolov5n")), Architecture)
