"""Pascal VOC as people ship it: with and without ImageSets, odd boxes, and XML that must not be read on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.packing import Judged, judge, picture
from worker.ingest.pictures import Pictures
from worker.ingest.report import Report
from worker.ingest.voc import MAX_DEPTH, parse_voc
from worker.ingest.voc_layout import voc_layout
from yolocore.spec.imports import ImportOptions


def thing(name: str = "cat", box: tuple[object, ...] = (5, 3, 24, 12), more: str = "") -> str:
    """Return an object on a line of its own; the box is xmin ymin xmax ymax."""
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"\n<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def voc(*things: str, filename: str = "a.png", size: tuple[int, int] = (40, 20)) -> bytes:
    """Return an annotation."""
    head = f"<filename>{filename}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{head}{''.join(things)}\n</annotation>".encode()


def one(
    tmp_path: Path, *things: str, content: bytes | None = None, size: tuple[int, int] = (40, 20)
) -> Judged:
    """Judge a set whose picture a has these objects; a cat and a dog are in picture b."""
    return judge(
        {
            "set/JPEGImages/a.png": picture(1),
            "set/JPEGImages/b.png": picture(2),
            "set/Annotations/a.xml": content or voc(thing(), *things, size=size),
            "set/Annotations/b.xml": voc(thing(), thing("dog"), filename="b.png"),
            "set/ImageSets/Main/train.txt": b"a\n",
            "set/ImageSets/Main/val.txt": b"b\r\n\r\n",
        },
        tmp_path,
    )


def test_boxes_count_from_one_and_classes_are_sorted_by_name(tmp_path: Path) -> None:
    found = one(tmp_path, thing("ant", (1, 1, 40, 20)))
    assert found.status == "ready" and not found.codes("error", "warning"), found.problems
    assert found.manifest["names"] == ["ant", "cat", "dog"]
    assert found.edges("JPEGImages/a.png") == [(1, [4, 2, 24, 12]), (0, [0, 0, 40, 20])]
    assert found.entry("CLASSES_SORTED")["value"] == "ant, cat, dog"


@pytest.mark.parametrize(
    ("bad", "severity", "code"),
    [
        (thing("cat", (1, 2, float("nan"), 4)), "error", "LABEL_NOT_A_NUMBER"),
        (thing("cat", (1, 2, "1e999", 4)), "error", "LABEL_NOT_A_NUMBER"),
        (thing("cat", (1, 2, "1_0", 4)), "error", "LABEL_NOT_A_NUMBER"),
        (thing("cat", (1, 2, "9" * 4000, 4)), "error", "LABEL_NOT_A_NUMBER"),
        (thing("cat", (1, 2, "", 4)), "error", "LABEL_NOT_A_NUMBER"),
        (thing(""), "error", "LABEL_CLASS"),
        (thing("x" * 300), "error", "LABEL_CLASS"),
        ("\n<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>", "error", "LABEL_COLUMNS"),
        ("\n<object><name>cat</name></object>", "warning", "VOC_NO_BOX"),
        (thing("cat", (9, 9, 9, 12)), "warning", "LABEL_NO_AREA_DROPPED"),
        (thing("cat", (50, 3, 60, 12)), "warning", "LABEL_NO_AREA_DROPPED"),
        (thing("cat", (30, 12, 10, 3)), "warning", "VOC_SWAPPED"),
        (thing("cat", (30, 3, 50, 12)), "warning", "LABEL_LEAVES_IMAGE"),
        (thing("cat", (-9, 3, 20, 12)), "warning", "LABEL_LEAVES_IMAGE"),
        (thing(), "warning", "LABEL_DUPLICATE"),
    ],
)
def test_a_bad_object_is_named_by_file_and_line(bad: str, severity: str, code: str, tmp_path: Path) -> None:
    found = one(tmp_path, bad)
    assert found.status == ("invalid" if severity == "error" else "ready"), found.problems
    entry = found.entry(code)
    assert (entry["severity"], entry["file"], entry["line"]) == (severity, "set/Annotations/a.xml", 3)


def test_parts_of_a_person_are_no_objects_and_difficult_ones_stay(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part><difficult>1</difficult>"
    found = one(tmp_path, thing("dog", (1, 1, 9, 9), part))
    assert found.status == "ready", found.problems
    assert found.edges("JPEGImages/a.png")[1] == (1, [0, 0, 9, 9])
    assert found.entry("VOC_DIFFICULT")["severity"] == "info"


@pytest.mark.parametrize(
    ("size", "code", "edges"),
    [
        ((0, 0), "IMAGE_SIZE_UNTOLD", [4, 2, 24, 12]),
        ((80, 40), "IMAGE_SIZE_DIFFERS", [2, 1, 12, 6]),
        ((20, 40), "IMAGE_SIZE_DIFFERS", [4, 2, 24, 12]),
    ],
)
def test_a_wrong_size_is_said(size: tuple[int, int], code: str, edges: list[int], tmp_path: Path) -> None:
    found = one(tmp_path, size=size)
    assert found.entry(code)["file"] == "set/Annotations/a.xml"
    assert found.edges("JPEGImages/a.png") == [(0, edges)]


ENTITY = b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<annotation><object>", "XML_SYNTAX"),
        (b"<annotation>\xff\xfe</annotation>", "XML_ENCODING"),
        (b'<?xml version="1.0"?>' + ENTITY + b"<annotation>&c;</annotation>", "XML_NOT_SAFE"),
        (b'<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>', "XML_NOT_SAFE"),
        (b"<annotation>&c;</annotation>", "XML_SYNTAX"),
        (b"<annotation>" + b"<x>" * (MAX_DEPTH + 100_000), "XML_TOO_DEEP"),
        (b'<?xml version="1.0" encoding="rot13"?><annotation>\xe9</annotation>', "XML_ENCODING"),
        (b"not xml at all", "XML_SYNTAX"),
    ],
)
def test_xml_that_is_not_read(content: bytes, code: str, tmp_path: Path) -> None:
    found = one(tmp_path, content=content)
    assert found.status == "invalid"
    entry = found.entry(code)
    assert (entry["file"], entry["severity"]) == ("set/Annotations/a.xml", "error")


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [("gbk", "gbk", "\u732b"), ("ISO-8859-1", "latin-1", "gar\xe7on"), ("utf-16", "utf-16", "\u732b")],
)
def test_encodings_xml_may_have(declared: str, encoding: str, name: str, tmp_path: Path) -> None:
    text = f'<?xml version="1.0" encoding="{declared}"?>' + voc(thing(name)).decode()
    found = one(tmp_path, content=text.encode(encoding))
    assert found.status == "ready", found.problems
    assert name in found.manifest["names"]


def test_other_xml_is_ignored(tmp_path: Path) -> None:
    found = judge({"a.png": picture(1), ".idea/misc.xml": b"<project/>"}, tmp_path)
    assert found.codes("error") == {"FORMAT_NOT_RECOGNISED"}


def test_a_filename_leads_nowhere(tmp_path: Path) -> None:
    found = one(tmp_path, content=voc(thing(), filename="../../../etc/passwd"))
    assert found.status == "ready"
    assert found.entry("VOC_FILENAME")["value"] == "../../../etc/passwd"


def test_a_filename_helps_where_the_annotation_is_called_otherwise(tmp_path: Path) -> None:
    files = {f"p/{name}.png": picture(i) for i, name in enumerate("ab")}
    files |= {f"x/{i}.xml": voc(thing(), filename=f"C:\\me\\{name}.png") for i, name in enumerate("ab")}
    found = judge(files, tmp_path)
    assert found.status == "ready", found.problems
    assert found.result["num_boxes"] == 2


def test_folders_name_the_splits_where_there_are_no_lists(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for number, split in enumerate(("train", "valid", "test")):
        files |= {f"{split}/a.png": picture(number), f"{split}/a.xml": voc(thing())}
    found = judge(files, tmp_path)
    assert found.status == "ready", found.problems
    assert found.result["splits"] == {"train": 1, "val": 1, "test": 1}
    assert "SPLITS_MADE" not in found.codes()


def _listed(lists: dict[str, bytes]) -> dict[str, bytes]:
    files = {f"ImageSets/Main/{name}.txt": content for name, content in lists.items()}
    for number in range(6):
        files[f"JPEGImages/{number}.png"] = picture(number)
        files[f"Annotations/{number}.xml"] = voc(thing(), filename=f"{number}.png")
    return files


def test_trainval_is_divided_and_test_stays(tmp_path: Path) -> None:
    found = judge(_listed({"trainval": b"0\n1\n2\n3\n", "test": b"4\n5\n"}), tmp_path)
    assert found.status == "ready", found.problems
    assert found.names_of("test") == ["JPEGImages/4.png", "JPEGImages/5.png"]
    assert found.result["splits"]["train"] >= 1 and found.result["splits"]["val"] >= 1
    assert "SPLITS_MADE" in found.codes("info")


def test_lists_may_have_a_second_column_and_name_what_is_missing(tmp_path: Path) -> None:
    found = judge(_listed({"train": b"0  1\n1 -1\n", "val": b"2\ngone\n", "cat_train": b"5 1\n"}), tmp_path)
    assert found.result["splits"] == {"train": 2, "val": 1, "test": 0}
    entry = found.entry("LISTED_IMAGE_MISSING")
    assert (entry["file"], entry["line"], entry["value"]) == ("ImageSets/Main/val.txt", 2, "gone")


def test_a_line_that_fits_several_pictures_takes_none(tmp_path: Path) -> None:
    files = _listed({"train": b"0\n1\n", "val": b"2\n9\n"})
    found = judge(files | {"x/p/9.png": picture(8), "y/p/9.png": picture(9)}, tmp_path)
    assert found.result["splits"] == {"train": 2, "val": 1, "test": 0}
    entry = found.entry("LISTED_IMAGE_AMBIGUOUS")
    assert (entry["file"], entry["line"], entry["value"]) == ("ImageSets/Main/val.txt", 2, "9")


WORDS = st.sampled_from(["cat", "", "1", "-3", "0", "19.5", "nan", "1e5", "&lt;", "x" * 9]) | st.text(
    max_size=5
)
TAGS = st.sampled_from(
    [
        "object",
        "bndbox",
        "name",
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "size",
        "width",
        "filename",
        "part",
        "difficult",
    ]
)
TREES = st.recursive(
    WORDS,
    lambda inner: st.lists(st.tuples(TAGS, inner), max_size=6).map(
        lambda pairs: "".join(f"<{tag}>{content}</{tag}>" for tag, content in pairs)
    ),
    max_leaves=20,
)


@given(TREES | st.tuples(WORDS, WORDS, WORDS, WORDS).map(lambda box: thing("cat", box)))
@settings(max_examples=200, deadline=None)
def test_any_tree_gives_objects_or_problems(tree: str) -> None:
    content = f"<annotation>{tree}</annotation>".encode("utf-8", "surrogatepass")
    file = parse_voc(content)
    assert file.is_voc or file.problems
    report = Report()
    layout = voc_layout({"a.xml": file}, {}, Pictures(["a.png", "b.png"]), report, ImportOptions())
    assert layout is not None or report.count("error")


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"<annotation>", b"<?xml version='1.0' encoding='", b"\xff\xfe"]),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_file(content: bytes, start: bytes) -> None:
    file = parse_voc(start + content)
    assert file.objects == [] or file.is_voc
