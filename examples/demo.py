"""The demo: starts the service, trains a small YOLOv5 on handwriting through it, and stops everything.

    python -m examples.demo [--data demo-data] [--seed 0] [--epochs N]

A client like any other: it knows the stack's command, the client library and the sample's recipe. Exits 0
when the job succeeded; the last line then is `demo finished: mAP50=<value>`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from api.cli.session import describe_problem
from api.cli.watching import Watcher
from api.client import Client, ClientError, Job
from api.client.follow import follow
from examples.digits import SceneRecipe, build_archive
from examples.service import LocalService, ServiceError
from yolocore.spec.config import TrainConfig, parse_config

HERE = Path(__file__).resolve().parent
EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
_DATASET_WAIT_S = 120.0

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """The demo cannot go on."""


def say(text: str) -> None:
    """Print one plain line."""
    console.print(text, markup=False)


def load_recipe(arguments: argparse.Namespace) -> tuple[SceneRecipe, dict[str, Any]]:
    """Return the scenes' recipe and the job's configuration, with the command line's changes."""
    recipe = json.loads((HERE / "digits_job.json").read_text(encoding="utf-8"))
    scenes, config = recipe["scenes"], recipe["config"]
    if arguments.seed is not None:
        scenes["seed"] = config["seed"] = arguments.seed
    if arguments.epochs is not None:
        config["epochs"] = arguments.epochs
    return SceneRecipe(**scenes), config


def differences(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for every value of a configuration that is not the default."""
    ours, default = (_flat(c.model_dump(mode="json")) for c in (parse_config(config), TrainConfig()))
    for name, value in ours.items():
        if value != default[name]:
            yield f"{name}: {value} (default {default[name]})"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def upload(client: Client, recipe: SceneRecipe, folder: Path) -> str:
    """Build the sample dataset, upload it, wait for its check, and return its id."""
    content = build_archive(recipe)
    archive = folder / "digits.zip"
    archive.write_bytes(content)
    name = f"digits-{hashlib.sha256(content).hexdigest()[:8]}"
    say(f"dataset: {recipe.num_train} + {recipe.num_val} scenes of scanned digits, {len(content):,} bytes")
    dataset = client.push_dataset(archive, name)
    dataset = client.wait_for_dataset(dataset.id, timeout_s=_DATASET_WAIT_S)
    if dataset.status != "ready":
        lines = [describe_problem(problem) for problem in client.dataset_problems(dataset.id)]
        raise DemoError("\n".join(["the dataset was refused:", *lines]))
    say(f"dataset: {dataset.id} is ready, {dataset.num_boxes} boxes in {dataset.num_classes} classes")
    return dataset.id


def train(client: Client, dataset: str, config: dict[str, Any]) -> Job:
    """Submit the job, show it until it ends, and return it; it is cancelled if that is interrupted."""
    model = HERE / "digits.yaml"
    architecture = client.push_architecture(model.read_text(encoding="utf-8"), model.stem)
    say(f"model: {model.name}, {architecture.num_parameters:,} parameters, from random weights")
    for line in differences(config):
        say(f"not the default: {line}")
    job = client.submit(
        {"dataset": dataset, "architecture": architecture.id, "config": config, "name": "demo"}
    )
    try:
        Watcher(console).watch(follow(client, job.id))
        return client.wait_for_job(job.id, timeout_s=60)
    except KeyboardInterrupt:
        say("cancelling the job")
        client.cancel(job.id)
        raise


def cancel_leftovers(client: Client) -> None:
    """Cancel what an earlier demo left when it was killed; it would take the cores of this one."""
    for status in ("running", "queued"):
        for job in list(client.jobs(status=status)):
            say(f"cancelling {job.id}, left by an earlier demo")
            client.cancel(job.id)
            client.wait_for_job(job.id, timeout_s=60)


def fetch(client: Client, job: Job, folder: Path) -> dict[str, Path]:
    """Download everything the job left; return the paths by name."""
    target = folder / "results" / job.id
    return {
        artifact.name: client.download(job.id, artifact, target / Path(artifact.name).name)
        for artifact in client.artifacts(job.id)
    }


def report(job: Job, files: Mapping[str, Path]) -> float:
    """Print where the results are and the final figures; return the best mAP50."""
    if job.status != "succeeded":
        problem = job.error or {}
        raise DemoError(f"the job ended as {job.status}: {problem.get('code')}: {problem.get('message')}")
    best = job.best or {}
    pictures = [path for name, path in files.items() if name.startswith("predictions")]
    say(f"weights: {files.get('best.pt')}")
    if "best.onnx" in files:
        say(f"the same for other programs: {files['best.onnx']}")
    for picture in pictures:
        say(f"predictions on validation scenes: {picture}")
    say(f"best epoch {int(best.get('epoch', 0)) + 1}: mAP50-95={float(best.get('map50_95', 0)):.4f}")
    return float(best["map50"])


def run(arguments: argparse.Namespace) -> float:
    """Do the whole demo and return the measured mAP50."""
    folder: Path = arguments.data.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    recipe, config = load_recipe(arguments)
    say(f"starting the service in {folder}")
    with LocalService(folder) as service:
        say(f"dashboard: {service.browser_url}")
        with Client(service.url, service.token) as client:
            cancel_leftovers(client)
            job = train(client, upload(client, recipe, folder), config)
            files = fetch(client, job, folder)
        say("stopping the service")
    return report(job, files)


def main() -> int:
    """Run the demo from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Train a small YOLOv5 on handwriting through the whole service."
    )
    parser.add_argument(
        "--data", type=Path, default=Path("demo-data"), help="data folder of the demo's service"
    )
    parser.add_argument("--seed", type=int, help="seed of scenes and training")
    parser.add_argument("--epochs", type=int, help="epochs, instead of the recipe's")
    arguments = parser.parse_args()
    # Set even where a script's background job inherited "ignore": Ctrl-C and SIGTERM must always clean up.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        map50 = run(arguments)
    except KeyboardInterrupt:
        say("demo interrupted; nothing is left running")
        return EXIT_INTERRUPTED
    except (DemoError, ServiceError, ClientError, TimeoutError) as error:
        say(f"demo failed: {error}")
        return EXIT_FAILED
    say(f"demo finished: mAP50={map50:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
