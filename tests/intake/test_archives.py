"""Every collected dataset archive, each with one defect, is judged as its manifest decides.

Driven by the folder's own manifest. What attacks the process itself goes through the child program, so that
limits, exit codes and the files left behind are those of the service; the rest calls the same function.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared import ROOT, folder, intake_dir
from worker.ingest.limits import Limits
from worker.ingest.run import ingest_archive

ARCHIVE_ERRORS = 65

# Cases decided otherwise than proposed, each allowed by what the manifest expects of it.
DECIDED_OTHERWISE = {
    "zip_is_targz": ("accept", "tar.gz is a supported format, found by its content"),
}
# `reject` cases where the manifest allows the row or the picture to be dropped with an entry instead.
DROPPED_WITH_ENTRY = {
    "lab_coords_gt1_slight": ("LABEL_ABOVE_ONE", "labels/train/img00.txt"),
    "lab_coords_negative": ("LABEL_NEGATIVE", "labels/train/img00.txt"),
    "lab_width_negative": ("LABEL_NEGATIVE", "labels/train/img00.txt"),
    "img_truncated": ("IMAGE_DAMAGED", "images/train/img00.jpg"),
    "img_zero_bytes": ("IMAGE_EMPTY", "images/train/img00.jpg"),
    "img_text_as_jpg": ("IMAGE_UNREADABLE", "images/train/img00.jpg"),
    "img_html_as_jpg": ("IMAGE_UNREADABLE", "images/train/img00.jpg"),
}
# What the report must name for the refused ones: code, and file where there is one.
REFUSED_BECAUSE = {
    "lab_class_negative": ("LABEL_CLASS", "labels/train/img00.txt"),
    "lab_4_columns": ("LABEL_COLUMNS", "labels/train/img00.txt"),
    "lab_6_columns": ("LABEL_COLUMNS", "labels/train/img00.txt"),
    "lab_inf": ("LABEL_NOT_A_NUMBER", "labels/train/img00.txt"),
    "lab_comma": ("LABEL_NOT_A_NUMBER", "labels/train/img00.txt"),
    "lab_decimal_comma": ("LABEL_NOT_A_NUMBER", "labels/train/img00.txt"),
    "lab_utf16": ("LABEL_ENCODING", "labels/train/img00.txt"),
    "lab_underscore_num": ("LABEL_NOT_A_NUMBER", "labels/train/img00.txt"),
    "lab_unicode_digits": ("LABEL_NOT_A_NUMBER", "labels/train/img00.txt"),
    "lab_none_in_train": ("NO_BOXES", None),
    "zip_bomb_1gb": ("ARCHIVE_BOMB", "images/train/big.bin"),
    "zip_size_lie": ("ARCHIVE_CORRUPT", "images/train/liar.jpg"),
    "zip_overlap_bomb": ("ARCHIVE_BOMB", "images/train/a001.bin"),
    "zip_slip_dotdot": ("UNSAFE_PATH", "../../../../tmp/pwned_slip.txt"),
    "zip_slip_backslash": ("UNSAFE_PATH", "..\\..\\..\\tmp\\pwned_bs.txt"),
    "zip_slip_drive": ("UNSAFE_PATH", "C:\\Windows\\Temp\\pwned.txt"),
    "zip_slip_inner": ("UNSAFE_PATH", "images/train/../../../../../tmp/pwned_inner.txt"),
    "zip_slip_sibling": ("UNSAFE_PATH", "../dataset-evil/x.txt"),
    "zip_symlink_dir": ("LINK_ENTRY", "labels2"),
    "zip_nul_name": ("UNSAFE_PATH", "images/train/evil\\x00.jpg"),
    "zip_file_dir_clash": ("FILE_FOLDER_CLASH", "images/train/img00.jpg"),
    "zip_unknown_method": ("COMPRESSION_METHOD", "images/train/img00.jpg"),
    "zip_not_a_zip": ("ARCHIVE_FORMAT", None),
    "zip_truncated": ("ARCHIVE_CORRUPT", None),
    "zip_is_rar": ("ARCHIVE_FORMAT", None),
    "yml_nc_mismatch": ("DATA_NC", "data.yaml"),
    "yml_names_dict_gap": ("DATA_NAMES", "data.yaml"),
    "yml_train_missing": ("DATA_KEY_MISSING", "data.yaml"),
    "yml_escape": ("SPLIT_ESCAPES", "data.yaml"),
    "yml_escape_path": ("SPLIT_ESCAPES", "data.yaml"),
    "yml_train_nodir": ("SPLIT_NOT_FOUND", "data.yaml"),
    "yml_python_tag": ("YAML_TAG", "data.yaml"),
    "yml_billion_laughs": ("YAML_ALIASES", "data.yaml"),
    "yml_tabs": ("YAML_SYNTAX", "data.yaml"),
    "yml_multi_doc": ("YAML_DOCUMENTS", "data.yaml"),
    "voc_broken_xml": ("XML_SYNTAX", "VOC/Annotations/img00.xml"),
    "coco_bad_category": ("LABEL_CLASS", "train/_annotations.coco.json"),
    "coco_nan": ("LABEL_NOT_A_NUMBER", "train/_annotations.coco.json"),
    "coco_deep_json": ("JSON_TOO_DEEP", "train/_annotations.coco.json"),
}
# What the report must name for those that are accepted with a word: code, file, and a part of the value.
MENDED = {
    "voc_swapped": ("VOC_SWAPPED", "VOC/Annotations/img00.xml", "90 10 20 80"),
    "voc_size_zero": ("IMAGE_SIZE_UNTOLD", "VOC/Annotations/img00.xml", "0 x 0"),
    "voc_out_of_image": ("LABEL_LEAVES_IMAGE", "VOC/Annotations/img00.xml", "280"),
    "coco_negative_box": ("LABEL_NEGATIVE", "train/_annotations.coco.json", "annotation 1:"),
    "coco_orphan_ann": ("COCO_ORPHAN", "train/_annotations.coco.json", "annotation 1"),
}
MAX_RSS_BYTES = 300 << 20
MAX_LEFT_BYTES = 20 << 20
MEASURE = """
import resource, subprocess, sys
quiet = subprocess.DEVNULL
code = subprocess.run(sys.argv[1:], stdin=quiet, stdout=quiet, stderr=quiet).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


# Categories and cases that aim at memory, disk or the interpreter.
ATTACKS = {
    "archive",
    "planted",
    "img_png_text_bomb",
    "img_corrupt_middle",
    "yml_python_tag",
    "yml_billion_laughs",
}


def _cases() -> list[Any]:
    root = folder("TRAINSHED_INTAKE", "intake")
    if root is None:
        return [pytest.param(None, id="absent")]
    manifest = json.loads((root / "archives" / "manifest.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["id"]) for case in manifest["cases"]]


def run_child(archive: Path, task_dir: Path) -> tuple[int, dict[str, Any], dict[str, Any], int]:
    """Run the ingest program on an archive; return exit code, result, report and peak memory in bytes."""
    task_dir.mkdir(parents=True, exist_ok=True)
    task = {"archive": str(archive), "name": archive.name, "limits": {}}
    (task_dir / "task.json").write_text(json.dumps(task), encoding="utf-8")
    # A process starts with the peak of the one it was forked from, and ours may have held networks: a small
    # one in between reads the true figure.
    measured = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, sys.executable, "-P", "-m", "worker.ingest", str(task_dir)],
        cwd=task_dir,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    code, peak_kib = map(int, measured.stdout.split())
    result = json.loads((task_dir / "result.json").read_text(encoding="utf-8"))
    report = json.loads((task_dir / "report.json").read_text(encoding="utf-8"))
    return code, result, report, peak_kib * 1024


def run_here(archive: Path, task_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ingest an archive in this process; return result and report."""
    task_dir.mkdir(parents=True, exist_ok=True)
    result = ingest_archive(archive, task_dir, Limits())
    return result, json.loads((task_dir / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", _cases())
def test_archive_is_judged_as_decided(case: dict[str, Any] | None, tmp_path: Path) -> None:
    root = intake_dir()
    assert case is not None
    before = set(Path("/tmp").glob("pwned*"))
    archive = root / "archives" / case["file"]
    if case["category"] in ATTACKS or case["id"] in ATTACKS:
        code, result, report, rss_bytes = run_child(archive, tmp_path / "task")
        assert code == (0 if result["status"] == "ready" else ARCHIVE_ERRORS)
        assert rss_bytes < MAX_RSS_BYTES
    else:
        result, report = run_here(archive, tmp_path / "task")
    assert set(Path("/tmp").glob("pwned*")) == before
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) < MAX_LEFT_BYTES
    _check_decision(case["id"], case["decision"], result, report["problems"])


def _check_decision(
    case_id: str, decision: str, result: dict[str, Any], problems: list[dict[str, Any]]
) -> None:
    status = result["status"]
    serious = [p for p in problems if p["severity"] in ("error", "warning")]
    decision = DECIDED_OTHERWISE.get(case_id, (decision,))[0]
    if decision in ("accept", "accept_warn"):
        assert status == "ready", problems
        assert not [p for p in problems if p["severity"] == "error"]
    if decision == "accept_warn":
        assert serious, "what was mended or ignored must be said"
    if case_id in MENDED:
        code, file, value = MENDED[case_id]
        assert [p for p in serious if (p["code"], p["file"]) == (code, file) and value in p["value"]]
    if decision == "either" and status == "invalid":
        assert serious
    if decision == "reject":
        _check_refusal(case_id, status, serious)


def _check_refusal(case_id: str, status: str, serious: list[dict[str, Any]]) -> None:
    named = {(p["code"], p["file"]) for p in serious}
    if case_id in DROPPED_WITH_ENTRY:
        assert status == "ready" and DROPPED_WITH_ENTRY[case_id] in named
        return
    assert status == "invalid"
    assert any(p["severity"] == "error" for p in serious)
    if case_id in REFUSED_BECAUSE:
        assert REFUSED_BECAUSE[case_id] in named


def _manifest(case_id: str, tmp_path: Path) -> dict[str, Any]:
    archive = intake_dir() / "archives" / f"{case_id}.zip"
    result, _ = run_here(archive, tmp_path / case_id)
    assert result["status"] == "ready"
    found: dict[str, Any] = json.loads((tmp_path / case_id / "manifest.json").read_bytes())
    return found


@pytest.mark.parametrize(
    "case_id",
    [
        "lab_bom",
        "lab_crlf",
        "lab_blank_tabs",
        "lab_classes_txt",
        "zip_bzip2",
        "zip_zip64",
        "zip_streamed",
        "zip_one_folder",
        "zip_two_folders",
        "zip_macosx",
        "yml_bom",
        "yml_crlf",
        "yml_nc_missing",
        "yml_abs_path",
        "yml_train_txt",
        "yml_two",
        "npy_planted",
        "zip_is_targz",
    ],
)
def test_harmless_variants_make_the_control_s_manifest(case_id: str, tmp_path: Path) -> None:
    assert _manifest(case_id, tmp_path) == _manifest("ctl_good", tmp_path)


def test_counts_of_the_control(tmp_path: Path) -> None:
    found = _manifest("ctl_good", tmp_path)
    assert [image["split"] for image in found["images"]].count("train") == 6
    assert [image["split"] for image in found["images"]].count("val") == 2
    assert len(found["names"]) == 7
    for image in found["images"]:
        path = tmp_path / "ctl_good" / "images" / image["sha256"][:2] / image["sha256"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == image["sha256"]


def test_a_rotated_picture_counts_upright(tmp_path: Path) -> None:
    upright, rotated = (_manifest(name, tmp_path)["images"] for name in ("ctl_good", "img_exif_rotated"))
    for one, other in zip(upright, rotated, strict=True):
        assert (one["width"], one["height"], one["rows"]) == (other["width"], other["height"], other["rows"])


def test_a_box_that_leaves_the_picture_is_clipped(tmp_path: Path) -> None:
    rows = [row for image in _manifest("lab_box_leaves_image", tmp_path)["images"] for row in image["rows"]]
    assert all(x + w / 2 <= 1 + 1e-9 and x - w / 2 >= -1e-9 for _, x, _, w, _ in rows)


def test_same_names_in_two_folders_keep_their_own_labels(tmp_path: Path) -> None:
    plain = {image["sha256"]: image["rows"] for image in _manifest("ctl_good", tmp_path)["images"]}
    for image in _manifest("zip_dup_basenames", tmp_path)["images"]:
        assert plain[image["sha256"]] == image["rows"]
