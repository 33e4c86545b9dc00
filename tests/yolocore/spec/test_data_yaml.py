"""data.yaml in all its forms, and each mistake with its line."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support.shared import intake_dir
from yolocore.errors import DatasetError
from yolocore.spec.dataset import DataYaml, parse_data_yaml

BASE = "train: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (BASE + "names: [a, b]\n", ("a", "b")),
        (BASE + "nc: 2\nnames:\n- a\n- b\n", ("a", "b")),
        (BASE + "names:\n  1: b\n  0: a\n", ("a", "b")),
        (BASE + "nc: 2\n", ("class0", "class1")),
        (BASE + "names: [1, null, yes]\n", ("1", "null", "yes")),
        ("\ufeff" + BASE.replace("\n", "\r\n") + "names: [a]\r\n", ("a",)),
    ],
)
def test_names(text: str, names: tuple[str, ...]) -> None:
    assert parse_data_yaml(text).names == names
    assert parse_data_yaml(text.encode()).names == names


def test_entries_are_texts_or_lists_of_texts() -> None:
    data = parse_data_yaml("path: ..\ntrain: [a, b]\nval: ../val/images\ntest: t.txt\nnames: [x]\n")
    expected = DataYaml(names=("x",), train=("a", "b"), val=("../val/images",), test=("t.txt",), path="..")
    assert data == expected
    assert parse_data_yaml(BASE + "test:\nnames: [x]\n").test == ()


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("val: v\nnames: [a]\n", "DATA_KEY_MISSING", None),
        ("train:\nval: v\nnames: [a]\n", "DATA_KEY_MISSING", 1),
        (BASE, "DATA_NAMES", None),
        (BASE + "names: []\n", "DATA_NAMES", 3),
        (BASE + "names: hello\n", "DATA_NAMES", 3),
        (BASE + "names: {0: a, 2: b}\n", "DATA_NAMES", 3),
        (BASE + "names: {0: a, 0: b}\n", "DATA_NAMES", 3),
        (BASE + "names: [[a]]\n", "DATA_NAMES", 3),
        (BASE + "nc: 5\nnames: [a]\n", "DATA_NC", 3),
        (BASE + "nc: many\nnames: [a]\n", "DATA_NC", 3),
        (BASE + "nc: 00000000231551809\n", "DATA_NC", 3),
        (BASE + "names: {0: a, 00000000001: b, 1: c}\n", "DATA_NAMES", 3),
        ("train: images/**\nval: v\nnames: [a]\n", "DATA_PATH", 1),
        (BASE + "names:\n\t- a\n", "YAML_SYNTAX", 4),
        (BASE + "names: !!python/object/apply:os.system ['true']\n", "YAML_TAG", 3),
        (BASE + "names: [a]\n---\na: 1\n", "YAML_DOCUMENTS", 4),
        (BASE + "names: [a]\ntrain: x\n", "YAML_DUPLICATE_KEY", 4),
        ("- a\n", "YAML_NOT_A_MAPPING", None),
        ("", "YAML_NOT_A_MAPPING", None),
        ("[" * 10_000, "YAML_TOO_DEEP", 1),
        ("a: &a [x]\nb: [" + "*a, " * 100 + "]\n", "YAML_ALIASES", 2),
        ("# " + "x" * 300_000, "YAML_TOO_LARGE", None),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, code: str, line: int | None) -> None:
    with pytest.raises(DatasetError) as caught:
        parse_data_yaml(text)
    assert [(problem.code, problem.line) for problem in caught.value.problems][0] == (code, line)


def test_characters_written_as_json_does_are_whole() -> None:
    assert parse_data_yaml(BASE + 'names: ["\\ud83d\\ude00 face"]\n').names == ("\U0001f600 face",)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (BASE + 'names: [a, "b\\ud83d"]\n', "DATA_NAMES", 3),
        (BASE + 'names: {0: "\\udc00\\ud83d"}\n', "DATA_NAMES", 3),
        ('val: v\ntrain: "t\\ude00"\nnames: [a]\n', "DATA_PATH", 2),
    ],
)
def test_half_a_character_is_refused_in_words_that_can_be_sent(text: str, code: str, line: int) -> None:
    with pytest.raises(DatasetError) as caught:
        parse_data_yaml(text)
    problem = caught.value.problems[0]
    assert (problem.code, problem.line, caught.value.place) == (code, line, f"data.yaml:{line}")
    assert problem.value is not None and problem.value.encode() and str(caught.value).encode()


def test_bytes_that_are_no_text_are_named() -> None:
    with pytest.raises(DatasetError) as caught:
        parse_data_yaml(BASE.encode() + "names: [\u9c7c]\n".encode("gbk"))
    assert caught.value.code == "YAML_ENCODING"


def test_download_is_told_and_never_run(tmp_path: Path) -> None:
    data = parse_data_yaml(BASE + f"names: [a]\ndownload: bash touch {tmp_path}/ran\n")
    assert [note.code for note in data.notes] == ["DATA_DOWNLOAD_IGNORED"]
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    *(
        "yml_billion_laughs",
        "yml_gbk",
        "yml_multi_doc",
        "yml_names_dict_gap",
        "yml_nc_mismatch",
        "yml_nc_zero",
    ),
    *("yml_python_tag", "yml_tabs", "yml_train_glob", "yml_train_missing"),
}


def test_uploads_are_read_or_refused() -> None:
    refused = set()
    for path in sorted(intake_dir().glob("archives/yml_*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in (name for name in archive.namelist() if name.endswith((".yaml", ".yml"))):
                try:
                    assert len(parse_data_yaml(archive.read(name)).names) == 7
                except DatasetError as error:
                    assert error.problems
                    refused.add(path.stem)
    assert refused == REFUSED
