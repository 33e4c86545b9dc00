"""Outlined objects cost the ingest little more memory than their numbers."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

# The peak of the program itself: what `getrusage` tells of a child includes the parent it was forked from.
PROGRAM = """
import re, sys
from worker.ingest.__main__ import main
assert main(sys.argv[1:]) == 0
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
POINTS, OBJECTS_PER_PICTURE = 24, 100


def archive_of(path: Path, num_pictures: int) -> None:
    """Write a COCO archive of pictures with a hundred outlined objects each."""
    images, annotations = [], []
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(num_pictures):
            content = io.BytesIO()
            Image.new("RGB", (160, 120), (number % 256, number // 256, 0)).save(content, "PNG")
            archive.writestr(f"{number}.png", content.getvalue())
            images.append({"id": number, "file_name": f"{number}.png", "width": 160, "height": 120})
            annotations += [annotation(number, index) for index in range(OBJECTS_PER_PICTURE)]
        coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
        archive.writestr("a.json", json.dumps(coco))


def annotation(image: int, index: int) -> dict[str, object]:
    x, y, radius = 10 + 14.1 * (index % 10), 10 + 9.7 * (index // 10), 4.3
    angles = [2 * math.pi * point / POINTS for point in range(POINTS)]
    outline = [v for a in angles for v in (x + radius * math.cos(a), y + radius * math.sin(a))]
    box = [x - radius, y - radius, 2 * radius, 2 * radius]
    own = image * OBJECTS_PER_PICTURE + index
    return {"id": own, "image_id": image, "category_id": 1, "bbox": box, "segmentation": [outline]}


def peak_bytes(folder: Path, num_pictures: int) -> int:
    """Return the most memory that the ingest of so many pictures had at once."""
    folder.mkdir()
    archive_of(folder / "a.zip", num_pictures)
    (folder / "task.json").write_text(json.dumps({"archive": str(folder / "a.zip")}))
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True
    )
    result = json.loads((folder / "result.json").read_bytes())
    assert result["num_boxes"] == num_pictures * OBJECTS_PER_PICTURE
    return int(told.stdout) * 1024


def test_outlined_objects_take_little_memory(tmp_path: Path) -> None:
    objects = 12_000
    few, many = peak_bytes(tmp_path / "few", 2), peak_bytes(tmp_path / "many", objects // OBJECTS_PER_PICTURE)
    # The numbers are 384 bytes, their text twice 900; as Python's own objects all of it was 7000.
    assert (many - few) / objects < 4000
