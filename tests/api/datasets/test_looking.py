"""Datasets as they are looked into over HTTP: images, thumbnails, report, difference, export."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from api.datasets.export import data_yaml, export, flat_names, yolo_rows
from api.datasets.manifests import difference, images_page, read_listing
from api.domain.blobs import BlobStore
from api.domain.records import DatasetStatus, IngestResult
from api.domain.tasks import TaskBook
from tests.support.service import ZIP_HEAD, World
from yolocore.spec.data_yaml import parse_data_yaml
from yolocore.spec.dataset import Manifest, ManifestImage, Split
from yolocore.spec.labels import parse_label_text

NAMES = ["cat", 'd: o"g']
THIRD = 1 / 3


def picture(
    blobs: BlobStore, content: bytes, split: Split, name: str, rows: Any, **more: Any
) -> ManifestImage:
    blob = blobs.put_bytes(content)
    return ManifestImage(
        split=split, name=name, sha256=blob.sha256, bytes=len(content), width=30, height=20, rows=rows, **more
    )


def images_of(blobs: BlobStore) -> list[ManifestImage]:
    triangle = [(0.1, 0.1), (THIRD, 0.1), (0.1, 0.5)]
    return [
        picture(blobs, b"one", "train", "images/a.jpg", [(0, 0.5, 0.5, THIRD, 0.25)]),
        picture(blobs, b"two", "train", "more/a.jpg", [(0, 0.25, 0.5, 0.2, 0.2), (1, 0.5, 0.5, 1.0, 1.0)]),
        picture(blobs, b"three", "val", "images/b.png", [(1, 0.2, 0.3, 0.2, 0.4)], polygons=[triangle]),
        picture(blobs, b"four", "val", "images/c.png", []),
    ]


def a_dataset(
    world: World,
    client: httpx.Client,
    name: str,
    images: Iterable[ManifestImage],
    *,
    names: list[str] = NAMES,
    status: DatasetStatus = DatasetStatus.READY,
) -> str:
    """Make a dataset of which everything is stored, as an ingest leaves it."""
    blobs, tasks = BlobStore(world.settings.blobs_dir), TaskBook(world.store, world.settings)
    answer = client.put("/v1/datasets", params={"name": name}, content=ZIP_HEAD + name.encode())
    assert answer.status_code == 202, answer.text
    manifest = Manifest.build(names, images)
    task = tasks.claim("ingest", "test")
    assert task is not None
    thumbnails = io.BytesIO()
    with zipfile.ZipFile(thumbnails, "w") as archive:
        for number in range(len(manifest.images)):
            archive.writestr(f"{number:06d}.jpg", f"{name} {number}")
    found = IngestResult(
        status,
        report_sha256=blobs.put_bytes(b'{"problems": []}').sha256,
        manifest_hash=blobs.put_bytes(manifest.canonical_json()).sha256 if status == "ready" else None,
        statistics={"images": 4},
        classes=tuple(names),
        files={
            "thumbnails": blobs.put_bytes(thumbnails.getvalue()).sha256,
            "page": blobs.put_bytes(b"<p>fine</p>").sha256,
        },
    )
    tasks.finish_ingest(task.id, task.attempt, found)
    return str(answer.json()["id"])


@pytest.fixture
def dataset(world: World, client: httpx.Client) -> str:
    return f"/v1/datasets/{a_dataset(world, client, 'ds', images_of(BlobStore(world.settings.blobs_dir)))}"


def test_the_view_leads_to_all_of_it(client: httpx.Client, dataset: str) -> None:
    links = client.get(dataset).json()["links"]
    assert set(links) == {"self", "problems", "statistics", "images", "export", "thumbnails", "report"}
    assert client.get(links["statistics"]).json() == {"images": 4}


def test_images_come_in_pages(client: httpx.Client, dataset: str) -> None:
    first = client.get(f"{dataset}/images", params={"limit": 3})
    assert [one["name"] for one in first.json()["items"]] == ["images/a.jpg", "more/a.jpg", "images/b.png"]
    assert first.json()["items"][0]["boxes"] == [[0, 0.5, 0.5, THIRD, 0.25]]
    rest = client.get(first.links["next"]["url"]).json()
    assert ([one["n"] for one in rest["items"]], rest["next"]) == ([3], None)


@pytest.mark.parametrize(
    ("query", "positions"),
    [
        ({"split": "val"}, [2, 3]),
        ({"class": "cat"}, [0, 1]),
        ({"class": "1"}, [1, 2]),
        ({"class": NAMES[1], "split": "train"}, [1]),
    ],
)
def test_images_are_chosen(
    client: httpx.Client, dataset: str, query: dict[str, str], positions: list[int]
) -> None:
    items = client.get(f"{dataset}/images", params=query).json()["items"]
    assert [one["n"] for one in items] == positions


@pytest.mark.parametrize(
    ("query", "code"),
    [({"class": "x"}, "CLASS_UNKNOWN"), ({"cursor": "x"}, "BAD_CURSOR"), ({"split": "x"}, "REQUEST_INVALID")],
)
def test_images_that_cannot_be_chosen(
    client: httpx.Client, dataset: str, query: dict[str, str], code: str
) -> None:
    answer = client.get(f"{dataset}/images", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_thumbnail_is_kept_by_who_saw_it(client: httpx.Client, dataset: str) -> None:
    answer = client.get(f"{dataset}/thumbnails/2")
    assert (answer.content, answer.headers["content-type"]) == (b"ds 2", "image/jpeg")
    assert "immutable" in answer.headers["cache-control"]
    again = client.get(f"{dataset}/thumbnails/2", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{dataset}/thumbnails/4").status_code == 404


def test_the_page_can_do_nothing(client: httpx.Client, dataset: str) -> None:
    answer = client.get(f"{dataset}/report.html")
    assert (answer.text, answer.headers["x-content-type-options"]) == ("<p>fine</p>", "nosniff")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script" not in policy


def test_a_dataset_without_anything_to_see(client: httpx.Client) -> None:
    made = client.put("/v1/datasets", params={"name": "new"}, content=ZIP_HEAD).json()
    base = f"/v1/datasets/{made['id']}"
    for path in ("images", "export", "statistics", f"diff?other={made['id']}"):
        answer = client.get(f"{base}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "DATASET_NOT_READY")
    for path in ("thumbnails/0", "report.html"):
        assert client.get(f"{base}/{path}").status_code == 404


def test_what_an_inspection_shows_may_change(world: World, client: httpx.Client) -> None:
    blobs = BlobStore(world.settings.blobs_dir)
    made = a_dataset(world, client, "seen", images_of(blobs), status=DatasetStatus.INSPECTED)
    answer = client.get(f"/v1/datasets/{made}/thumbnails/0")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-cache")
    assert client.get(f"/v1/datasets/{made}/images").status_code == 409


def test_two_datasets_are_compared(world: World, client: httpx.Client, dataset: str) -> None:
    blobs = BlobStore(world.settings.blobs_dir)
    names = ['d: o"g', "cat", "bird"]
    other = [
        picture(blobs, b"one", "val", "images/a.jpg", [(1, 0.5, 0.5, THIRD, 0.25)]),
        picture(blobs, b"two", "train", "renamed.jpg", [(1, 0.25, 0.5, 0.2, 0.21)]),
        picture(blobs, b"four", "val", "images/c.png", []),
        picture(blobs, b"five", "train", "five.jpg", []),
    ]
    made = a_dataset(world, client, "other", other, names=names)
    found = client.get(f"{dataset}/diff", params={"other": made}).json()
    counts = {kind: told["count"] for kind, told in found.items() if kind != "classes"}
    assert counts == {"images_added": 1, "images_removed": 1, "images_moved": 1, "boxes_changed": 1}
    assert found["images_added"]["first"][0]["name"] == "five.jpg"
    moved = found["images_moved"]["first"][0]
    assert (moved["name"], moved["from"], moved["to"]) == ("images/a.jpg", "train", "val")
    changed = found["boxes_changed"]["first"][0]
    assert (changed["boxes_added"], changed["boxes_removed"]) == (1, 2)
    assert found["classes"] == {"added": ["bird"], "removed": [], "renumbered": ['d: o"g', "cat"]}


def test_a_dataset_differs_in_nothing_from_itself(client: httpx.Client, dataset: str) -> None:
    found = client.get(f"{dataset}/diff", params={"other": dataset.rpartition("/")[2]}).json()
    assert {told["count"] for kind, told in found.items() if kind != "classes"} == {0}


def test_many_differences_are_told_in_part() -> None:
    image = {"split": "train", "rows": [], "bytes": 1, "width": 1, "height": 1}
    many = [{**image, "name": f"{n}", "sha256": f"{n:064x}"} for n in range(150)]
    found = difference({"names": [], "images": []}, {"names": [], "images": many})
    assert (found["images_added"]["count"], len(found["images_added"]["first"])) == (150, 100)
    items, after = images_page({"names": [], "images": many}, limit=100, cursor=None, split=None, class_=None)
    assert (len(items), after) == (100, "i100")


def exported(client: httpx.Client, dataset: str, form: str) -> zipfile.ZipFile:
    answers = [client.get(f"{dataset}/export", params={"format": form}) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["content-disposition"] == f'attachment; filename="ds-{form}.zip"'
    archive = zipfile.ZipFile(io.BytesIO(answers[0].content))
    assert archive.testzip() is None
    return archive


def test_export_as_yolo(client: httpx.Client, dataset: str) -> None:
    archive = exported(client, dataset, "yolo")
    described = parse_data_yaml(archive.read("data.yaml").decode())
    assert list(described.names) == NAMES
    files = [name for name in archive.namelist() if name.startswith("images/")]
    assert [archive.read(name) for name in files] == [b"one", b"two", b"three", b"four"]
    assert files[0] == "images/train/a.jpg"
    assert files[1].startswith("images/train/a-")
    rows, problems = parse_label_text(archive.read("labels/train/a.txt"), num_classes=2)
    assert ([tuple(row.numbers) for row in rows], problems) == ([(0, 0.5, 0.5, THIRD, 0.25)], [])
    assert archive.read("labels/val/b.txt").decode() == f"1 0.1 0.1 {THIRD!r} 0.1 0.1 0.5\n"
    assert archive.read("labels/val/c.txt") == b""


def test_export_as_coco(client: httpx.Client, dataset: str) -> None:
    archive = exported(client, dataset, "coco")
    told = json.loads(archive.read("annotations/instances_val.json"))
    assert [one["name"] for one in told["categories"]] == NAMES
    [one] = told["annotations"]
    assert one["bbox"] == pytest.approx([3.0, 2.0, 6.0, 8.0])
    assert (one["category_id"], one["image_id"]) == (2, 1)
    assert one["segmentation"] == [pytest.approx([3, 2, 10, 2, 3, 10])]
    assert archive.read(f"images/val/{told['images'][0]['file_name']}") == b"three"


def test_outlines_are_not_kept_and_each_split_has_its_own(world: World) -> None:
    blobs = BlobStore(world.settings.blobs_dir)
    manifest = Manifest.build(NAMES, images_of(blobs))
    listing = read_listing(io.BytesIO(manifest.canonical_json()))
    assert listing["names"] == NAMES
    assert not any("polygons" in image for image in listing["images"])
    zipped = io.BytesIO(
        b"".join(export(listing, lambda: (one.as_json() for one in manifest.images), blobs, "coco"))
    )
    with zipfile.ZipFile(zipped) as archive:
        told = [json.loads(archive.read(f"annotations/instances_{split}.json")) for split in ("train", "val")]
    assert [[one["file_name"] for one in split["images"]] for split in told] == [
        ["a.jpg", f"a-{manifest.images[1].sha256[:12]}.jpg"],
        ["b.png", "c.png"],
    ]
    assert [[one["image_id"] for one in split["annotations"]] for split in told] == [[1, 2, 2], [1]]
    assert [[one["id"] for one in split["annotations"]] for split in told] == [[1, 2, 3], [1]]


def test_names_are_unique_without_suffix_and_case() -> None:
    image = {"split": "train", "sha256": "a" * 64}
    names = ["x/a.jpg", "y/A.png", "z/a.jpg", "b"]
    found = flat_names([{**image, "name": name} for name in names])
    assert len({name.partition(".")[0].lower() for name in found}) == 4
    assert data_yaml(["a"], ["train"]).startswith("path: .\ntrain: images/train\n")
    rows = [(0, 0.5, 0.5, 1.0, 1.0)] * 2
    assert yolo_rows({"rows": rows}) == "0 0.5 0.5 1.0 1.0\n" * 2


def test_boxes_beside_outlines_are_written_as_corners() -> None:
    """In one file readers take all rows for outlines; the extent of the corners is the box."""
    boxes = [(1, 0.7, 0.5, THIRD, 0.25), (0, 0.05, 0.95, 0.1, 0.1)]
    triangle = [[0, 0], [1, 0], [1, THIRD]]
    mixed = {"rows": [(0, 0.5, THIRD / 2, 1, THIRD), *boxes], "polygons": [triangle, None, None]}
    rows, problems = parse_label_text(yolo_rows(mixed).encode(), num_classes=2)
    assert problems == []
    assert [list(map(list, row.polygon or ())) for row in rows][0] == triangle
    assert [len(row.polygon or ()) for row in rows] == [3, 4, 4]
    assert [pytest.approx(row.numbers, abs=1e-15) for row in rows[1:]] == boxes
