"""Whole runs on a tiny dataset: results, wishes, exact resumption, independence of loader threads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import Told, WishAt, do_run, newest_checkpoint, request, weights_hash
from tests.support.shapes import DEEP_MODEL, NAMES, write_shapes
from yolocore.errors import CheckpointError, ConfigError, DatasetError, NonFiniteError
from yolocore.model.build import build_network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.config import parse_config
from yolocore.spec.events import TrainEvent
from yolocore.spec.plan import plan_architecture
from yolocore.train.checkpoint import checkpoints_in, load_checkpoint, load_into, save_checkpoint
from yolocore.train.protocols import Wish

BATCHES = 4  # of an epoch: 10 images in batches of 3
PER_EPOCH = BATCHES + 1 + 1  # questions asked: each batch, one validation batch, the end of the epoch


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_yaml: Path) -> tuple[Path, Told]:
    """One run from start to end, for comparison."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, do_run(request(folder, data_yaml), pictures=True)


def test_a_run_tells_what_it_does_in_order(whole: tuple[Path, Told]) -> None:
    _, told = whole
    start = told.events[0]
    assert start.type == "start"
    assert (start.batches_per_epoch, start.num_train_images, start.classes) == (BATCHES, 10, list(NAMES))
    order = [event.type for event in told.events if event.type in ("epoch", "checkpoint")]
    assert order == ["epoch", "checkpoint"] * 3
    phases = [event.phase for event in told.of("phase")]
    assert phases == ["training", "validating"] * 3 + ["exporting"]
    last = told.of("checkpoint")[-1]
    assert (last.epoch, last.batch, last.phase) == (3, 0, "train")
    assert [event.epoch for event in told.of("epoch")] == [0, 1, 2]
    assert told.of("batch")[-1].batch == BATCHES - 1


def test_a_run_leaves_weights_table_and_pictures(whole: tuple[Path, Told]) -> None:
    folder, told = whole
    names = {event.name for event in told.of("artifact")}
    assert names >= {
        "best.pt", "last.pt", "results.csv", "results.png", "confusion_matrix.png", "PR_curve.png",
        "P_curve.png", "R_curve.png", "F1_curve.png", "predictions.jpg", "metrics.json", "labels.png",
        "train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg",
    }  # fmt: skip
    plots = [event for event in told.of("artifact") if event.path.endswith((".png", ".jpg"))]
    assert {event.kind for event in plots} == {"plot"}
    assert all((folder / event.path).stat().st_size == event.size_bytes for event in told.of("artifact"))
    table = (folder / "artifacts" / "results.csv").read_text().splitlines()
    assert [line.split(",")[0].strip() for line in table] == ["epoch", "0", "1", "2"]
    assert not list(folder.rglob("*.part"))


def test_the_metrics_are_those_of_the_best_epoch(whole: tuple[Path, Told]) -> None:
    folder, told = whole
    result, best = told.result, told.result.best
    assert best is not None and result.metrics is not None
    row = told.of("epoch")[best.epoch]
    assert (result.outcome, result.kind) == ("succeeded", None)
    assert result.metrics["map50"] == pytest.approx(row.map50, abs=0.02)  # as rounded in best.pt
    assert best.fitness == max(event.fitness for event in told.of("epoch"))
    assert json.loads((folder / "artifacts" / "metrics.json").read_text())["images"] == 4


def test_delivered_weights_stand_on_their_own(whole: tuple[Path, Told]) -> None:
    folder, _ = whole
    content = torch.load(folder / "artifacts" / "best.pt", weights_only=True)
    assert content["names"] == list(NAMES) and content["imgsz"] == 64
    plan = plan_architecture(parse_architecture(content["architecture"]), num_classes=len(content["names"]))
    network = build_network(plan)
    load_into(network, content["model"], "weights")
    assert content["model"]["model.0.conv.weight"].dtype == torch.float16
    assert content["strides"] == network.strides.tolist()


@pytest.mark.parametrize("threads", [0, 2])
def test_the_result_does_not_depend_on_loader_threads(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path, threads: int
) -> None:
    do_run(request(tmp_path, data_yaml), loader_threads=threads)
    assert weights_hash(newest_checkpoint(tmp_path)) == weights_hash(newest_checkpoint(whole[0]))


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_the_result_does_not_depend_on_the_cache(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path, cache: str
) -> None:
    do_run(request(tmp_path, data_yaml), cache=cache, cache_dir=tmp_path / "cache")
    assert weights_hash(newest_checkpoint(tmp_path)) == weights_hash(newest_checkpoint(whole[0]))


# Questions at which to pause: mid-accumulation, just stepped, at the end of the training part, in
# validation, at the end of an epoch, in the last epoch.
@pytest.mark.parametrize(
    "question", [1, 2, 3, BATCHES, BATCHES + 1, PER_EPOCH, PER_EPOCH + 2, 2 * PER_EPOCH + 3]
)
def test_a_paused_and_resumed_run_ends_with_the_same_weights(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path, question: int
) -> None:
    first = do_run(request(tmp_path / "1", data_yaml), WishAt("pause", question))
    assert (first.result.outcome, first.result.kind) == ("stopped", "pause")
    checkpoint = newest_checkpoint(tmp_path / "1")
    assert first.of("checkpoint")[-1].path == f"checkpoints/{checkpoint.name}"

    second = do_run(replace(request(tmp_path / "2", data_yaml), resume=checkpoint), loader_threads=2)
    assert second.events[0].type == "resume"
    assert second.result.outcome == "succeeded"
    assert weights_hash(newest_checkpoint(tmp_path / "2")) == weights_hash(newest_checkpoint(whole[0]))
    assert weights_hash(tmp_path / "2/artifacts/best.pt") == weights_hash(whole[0] / "artifacts/best.pt")
    assert without_time(tmp_path / "2") == without_time(whole[0])


def without_time(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the newest checkpoint without their seconds."""
    rows = load_checkpoint(newest_checkpoint(folder)).rows
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_run_resumed_after_its_last_epoch_only_delivers(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    told = do_run(replace(request(tmp_path, data_yaml), resume=newest_checkpoint(whole[0]), announced=True))
    assert {event.type for event in told.events} == {"phase", "artifact"}
    assert weights_hash(tmp_path / "artifacts/best.pt") == weights_hash(whole[0] / "artifacts/best.pt")


def test_checkpoints_come_by_time_as_well(data_yaml: Path, tmp_path: Path) -> None:
    told = do_run(request(tmp_path, data_yaml, epochs=1), checkpoint_every_s=1e-9)
    places = [(event.epoch, event.batch, event.phase) for event in told.of("checkpoint")]
    assert places == [(0, 1, "train"), (0, 2, "train"), (0, 3, "train"), (0, 4, "validate"), (1, 0, "train")]


def test_a_run_killed_after_a_checkpoint_by_time_goes_on_from_there(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(event: TrainEvent) -> None:
        if event.type == "batch" and event.epoch == 1 and event.batch == BATCHES - 1:
            raise Killed

    with pytest.raises(Killed):
        do_run(request(tmp_path / "1", data_yaml), watch=kill, checkpoint_every_s=1e-9)
    checkpoint = newest_checkpoint(tmp_path / "1")
    assert checkpoint.name == "e0001-b000003.ckpt"
    do_run(replace(request(tmp_path / "2", data_yaml), resume=checkpoint))
    assert weights_hash(newest_checkpoint(tmp_path / "2")) == weights_hash(newest_checkpoint(whole[0]))


def test_old_checkpoints_go_only_where_asked(data_yaml: Path, tmp_path: Path) -> None:
    do_run(request(tmp_path, data_yaml), keep_checkpoints=2, checkpoint_every_s=1e-9)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_a_wish_made_where_a_checkpoint_was_just_written_adds_none(data_yaml: Path, tmp_path: Path) -> None:
    for number, every_s in ((1, 1e9), (2, 0.0)):  # after an epoch's own, and after one by time
        folder = tmp_path / str(number)
        question = PER_EPOCH if number == 1 else 2
        told = do_run(request(folder, data_yaml), WishAt("drain", question), checkpoint_every_s=every_s)
        paths = [event.path for event in told.of("checkpoint")]
        assert len(paths) == number and len(set(paths)) == number
        assert told.result.kind == "drain"


def test_the_time_of_an_epoch_counts_from_before_a_pause(data_yaml: Path, tmp_path: Path) -> None:
    do_run(request(tmp_path, data_yaml, epochs=1), WishAt("pause", 2))
    snapshot = load_checkpoint(newest_checkpoint(tmp_path))
    assert 0 < snapshot.epoch_s < 60
    snapshot.epoch_s = 1000.0
    written = save_checkpoint(tmp_path / "e0000-b000002.ckpt", snapshot)
    told = do_run(replace(request(tmp_path / "2", data_yaml, epochs=1), resume=written.path))
    assert 1000 < told.of("epoch")[0].seconds < 1060


def test_going_on_from_an_older_checkpoint_drops_the_later_ones(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    oldest = checkpoints_in(tmp_path / "checkpoints")[0]
    asked = replace(request(tmp_path, data_yaml), resume=oldest)
    (saved,) = do_run(asked, WishAt("pause", 2), keep_checkpoints=1).of("checkpoint")
    assert (saved.epoch, saved.batch) == (1, 2)
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == [Path(saved.path).name]


def test_checkpoints_of_another_folder_are_left_alone(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    oldest, *later = checkpoints_in(whole[0] / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    other = shutil.copy(later[-1], tmp_path / "checkpoints")
    asked = replace(request(tmp_path, data_yaml), resume=oldest)
    (saved,) = do_run(asked, WishAt("pause", 2), keep_checkpoints=1).of("checkpoint")
    assert (tmp_path / saved.path).is_file() and Path(other).is_file()
    assert all(path.is_file() for path in later)


@pytest.mark.parametrize("question", [2, PER_EPOCH + 2, PER_EPOCH + BATCHES + 1])
def test_stop_keeps_the_best_so_far(data_yaml: Path, tmp_path: Path, question: int) -> None:
    told = do_run(request(tmp_path, data_yaml), WishAt("stop", question))
    assert (told.result.outcome, told.result.kind) == ("stopped", "stop")
    assert {event.name for event in told.of("artifact")} == {"best.pt", "last.pt", "results.csv"}
    assert (told.result.best is not None) == (question > PER_EPOCH)


def test_cancel_leaves_nothing_new(data_yaml: Path, tmp_path: Path) -> None:
    told = do_run(request(tmp_path, data_yaml), WishAt("cancel", 2))
    assert (told.result.outcome, told.result.kind) == ("stopped", "cancel")
    assert not told.of("checkpoint") and not told.of("artifact")


@pytest.mark.parametrize(("wish", "outcome"), [("stop", "succeeded"), ("drain", "stopped")])
def test_a_wish_in_the_last_act(data_yaml: Path, tmp_path: Path, wish: Wish, outcome: str) -> None:
    told = do_run(request(tmp_path, data_yaml, epochs=1), WishAt(wish, BATCHES + 2))
    assert told.result.outcome == outcome
    assert told.of("checkpoint")[-1].epoch == 1


def test_early_stopping_ends_a_run(data_yaml: Path, tmp_path: Path) -> None:
    frozen = {"lr0": 1e-7, "warmup_bias_lr": 0.0, "warmup_epochs": 0.0}
    told = do_run(request(tmp_path, data_yaml, epochs=50, patience=2, hyp=frozen, imgsz=64))
    assert len(told.of("epoch")) < 50
    assert told.result.outcome == "succeeded"


def test_weights_of_every_other_epoch_can_be_kept(data_yaml: Path, tmp_path: Path) -> None:
    do_run(request(tmp_path, data_yaml, save_period=2))
    assert {path.name for path in (tmp_path / "artifacts").glob("epoch*.pt")} == {"epoch0.pt", "epoch2.pt"}


@pytest.mark.parametrize(
    "config",
    [
        {"optimizer": "Adam", "schedule": "cosine", "hyp": {"lr0": 0.001}},
        {"optimizer": "AdamW", "precision": "bf16"},
        {"precision": "fp16", "single_cls": True, "label_smoothing": 0.1},
    ],
)
def test_other_ways_to_train_are_resumed_exactly_too(
    data_yaml: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    config = {**config, "epochs": 2}
    do_run(request(tmp_path / "0", data_yaml, **config))
    do_run(request(tmp_path / "1", data_yaml, **config), WishAt("drain", 2))
    resumed = replace(request(tmp_path / "2", data_yaml, **config), resume=newest_checkpoint(tmp_path / "1"))
    do_run(resumed)
    assert weights_hash(newest_checkpoint(tmp_path / "2")) == weights_hash(newest_checkpoint(tmp_path / "0"))


def test_a_checkpoint_of_another_run_is_refused(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    asked = replace(request(tmp_path, data_yaml, seed=1), resume=newest_checkpoint(whole[0]))
    with pytest.raises(CheckpointError) as caught:
        do_run(asked)
    assert caught.value.place == "config_hash"


def test_a_checkpoint_of_other_data_is_refused(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(data_yaml.parent, tmp_path / "copied")) / "data.yaml"
    resumed = replace(request(tmp_path / "1", copied), resume=newest_checkpoint(whole[0]))
    assert do_run(resumed).result.outcome == "succeeded"
    label = sorted((copied.parent / "labels" / "train").iterdir())[0]
    label.write_text("1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(CheckpointError) as caught:
        do_run(replace(resumed, folder=tmp_path / "2"))
    assert caught.value.place == "dataset"


def test_a_checkpoint_of_another_library_is_warned_of(
    whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path
) -> None:
    snapshot = load_checkpoint(newest_checkpoint(whole[0]))
    snapshot.identity |= {"numpy": "1.0", "opencv": "4.0", "processor": "abacus"}
    written = save_checkpoint(tmp_path / "e0003-b000000.ckpt", snapshot)
    told = do_run(replace(request(tmp_path / "1", data_yaml), resume=written.path))
    assert [event.message.split()[0] for event in told.of("warning")] == ["numpy", "opencv", "processor"]


def test_other_circumstances_are_warned_of(whole: tuple[Path, Told], data_yaml: Path, tmp_path: Path) -> None:
    config = request(tmp_path, data_yaml).config.model_copy(update={"threads": None})
    asked = replace(request(tmp_path, data_yaml), config=config)
    do_run(asked, WishAt("pause", 1), threads=1)
    resumed = replace(asked, folder=tmp_path / "2", resume=newest_checkpoint(tmp_path))
    told = do_run(resumed, WishAt("cancel", 1), threads=2)
    assert [event.code for event in told.of("warning")] == ["RESUME_DIFFERS"]


def test_losses_that_are_not_finite_end_the_run_with_evidence(data_yaml: Path, tmp_path: Path) -> None:
    wild = {"lr0": 1.0, "warmup_bias_lr": 1.0, "warmup_epochs": 0.0, "box": 10.0, "obj": 10.0, "cls": 10.0}
    asked = request(
        tmp_path, data_yaml, epochs=30, nominal_batch=1, hyp=wild, clip_norm=1e6, optimizer="SGD", patience=0
    )
    with pytest.raises(NonFiniteError) as caught:
        do_run(asked)
    assert caught.value.value is not None and ".png" in caught.value.value


def test_user_errors_have_names(data_yaml: Path, tmp_path: Path) -> None:
    asked = request(tmp_path, data_yaml)
    with pytest.raises(ConfigError):
        do_run(asked, device="cuda:7")
    empty = tmp_path / "empty.yaml"
    (tmp_path / "none").mkdir()
    empty.write_text(f"train: {tmp_path}/none\nval: {tmp_path}/none\nnames: [a]\n")
    with pytest.raises(DatasetError, match="no images"):
        do_run(replace(asked, data_yaml=empty))


def test_a_model_deeper_than_its_head_is_validated_too(data_yaml: Path, tmp_path: Path) -> None:
    asked = replace(request(tmp_path, data_yaml, epochs=1, imgsz=128), architecture_text=DEEP_MODEL)
    assert do_run(asked).result.outcome == "succeeded"


def test_hints_only_lower_what_the_settings_allow() -> None:
    from yolocore.train.request import RunSettings

    hints = parse_config({"runtime": {"workers": 8, "cache": "ram", "device": "cpu"}}).runtime
    settings = RunSettings(device="cuda:0", loader_threads=2, cache="disk").within(hints)
    assert (settings.device, settings.loader_threads, settings.cache) == ("cpu", 2, "disk")


@pytest.fixture(autouse=True)
def same_process_state() -> Iterator[None]:
    """A run leaves the process-wide switches as they were."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_events_are_told_before_the_next_batch(data_yaml: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def watch(event: TrainEvent) -> None:
        if event.type == "checkpoint":
            seen.append(event.path)
            assert (tmp_path / event.path).is_file()

    do_run(request(tmp_path, data_yaml, epochs=1), watch=watch)
    assert seen
