"""The service in containers, as docs/deploy.md starts it: in a copy of the project, under a name of its own.

Commands are those of the document, typed into a shell in the copy. Needs a Docker engine; knows of what runs
in the containers only what an operator sees.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.client import Client
from tests.support.shared import ROOT, missing

DOCUMENT = ROOT / "docs" / "deploy.md"
_MARKED = re.compile(r"^<!-- run: (\w+) -->\n```\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LABEL = "com.docker.compose.project"
# Of the user's environment: what finds the engine, and what builds need here.
_KEPT = ("PATH", "HOME", "LANG", "DOCKER_HOST", "DOCKER_CONFIG", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD")


def marked_blocks() -> dict[str, str]:
    """Return the shell blocks of the document that are to be run, by name."""
    return dict(_MARKED.findall(DOCUMENT.read_text("utf-8")))


def say(text: str) -> None:
    """Tell whoever waits what is going on."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def run(*command: str, timeout_s: float = 120, check: bool = True) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def until(condition: Callable[[], Any], what: str, timeout_s: float = 300.0) -> Any:
    """Wait for a condition and return what it found; each look starts programs, so it is not looked often."""
    began = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - began < timeout_s, f"waited {timeout_s:g} s in vain for: {what}"
        time.sleep(0.5)
    say(f"{what}: after {time.monotonic() - began:.0f} s")
    return found


def need_engine(folder: Path) -> Path | None:
    """Skip the test without an engine; return a folder for the path if `docker-compose` is only a plugin."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        missing("docker", "no Docker engine answers")
    if shutil.which("docker-compose") is not None:
        return None
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        missing("docker", "neither docker-compose nor the compose plugin is installed")
    shim = folder / "docker-compose"
    shim.write_text('#!/bin/sh\nexec docker compose "$@"\n', encoding="ascii")
    shim.chmod(0o755)
    return folder


def copy_project(target: Path) -> None:
    """Copy what images and stack are made of, without anything that was set up or left here."""
    opened = [
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    ]
    target.mkdir()
    for name in (*opened, "docker-compose.yml", ".dockerignore"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, target / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__")
            )
        else:
            shutil.copy(source, target / name)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Containers:
    """One compose project in a folder of its own; `close` leaves nothing of it but images."""

    def __init__(self, folder: Path, project: str, *, path: Path | None = None, **variables: str) -> None:
        self.folder = folder
        self.project = project
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if path is not None:
            kept["PATH"] = f"{path}:{kept['PATH']}"
        self.environment = {
            **kept,
            "COMPOSE_PROJECT_NAME": project,
            "TRAINSHED_PORT": str(self.port),
            "TRAINSHED_URL": self.url,
            **variables,
        }

    def shell(self, *blocks: str, after: str = "", timeout_s: float = 600.0, check: bool = True) -> str:
        """Type blocks of the document, then more, into one shell that ends at the first failure."""
        found = marked_blocks()
        script = "\n".join(["set -euo pipefail", *(found[name] for name in blocks), after])
        say(f"{self.project}: {' '.join(blocks) or after}")
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout[-3000:]}{done.stderr[-6000:]}"
        return done.stdout if check else done.stdout + done.stderr

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run docker-compose; return what it prints."""
        return self.shell(after="docker-compose " + " ".join(arguments), check=check)

    def ids(self, service: str) -> list[str]:
        """Return the containers of a service, stopped ones too."""
        label = f"label=com.docker.compose.service={service}"
        mine = f"label={_LABEL}={self.project}"
        return run("docker", "ps", "-aq", "--no-trunc", "--filter", mine, "--filter", label).split()

    def inspect(self, service: str) -> list[dict[str, Any]]:
        """Return what the engine knows of each container of a service."""
        found = self.ids(service)
        return list(json.loads(run("docker", "inspect", *found))) if found else []

    def states(self, service: str) -> list[str]:
        """Return the health of each container of a service, or its plain state where it has no check."""
        states = [one["State"] for one in self.inspect(service)]
        return [
            state["Health"]["Status"] if state["Running"] and "Health" in state else state["Status"]
            for state in states
        ]

    def secrets(self) -> dict[str, str]:
        """Return the passwords of the project's `.env`, and the first token."""
        lines = (self.folder / ".env").read_text("utf-8").splitlines()
        found = dict(line.split("=", 1) for line in lines if line.startswith(SECRETS))
        return {**found, "token": self.compose("exec -T api cat /data/secrets/token").strip()}

    def client(self) -> Client:
        """Open a client with the first token; the caller closes it."""
        return Client(self.url, self.environment["TRAINSHED_TOKEN"])

    def close(self) -> None:
        """Remove containers, networks and volumes of the project."""
        mine = f"label={_LABEL}={self.project}"
        for kind, listing in (
            ("container", ["ls", "-aq"]),
            ("volume", ["ls", "-q"]),
            ("network", ["ls", "-q"]),
        ):
            found = run("docker", kind, *listing, "--filter", mine).split()
            force = [] if kind == "network" else ["--force"]
            volumes = ["--volumes"] if kind == "container" else []
            if found:
                run("docker", kind, "rm", *force, *volumes, *found, timeout_s=300)


@contextmanager
def closed_at_the_end(*projects: Containers) -> Iterator[None]:
    """Remove what an earlier run left, and at the end what this one made: also after Ctrl-C and SIGTERM."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, interrupted)
    try:
        for project in projects:
            project.close()
        yield
    finally:
        for project in projects:
            project.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
