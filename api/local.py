"""`trainshed up`: the whole service on one machine, as one command.

Locks the data folder, starts Valkey, the API, an ingest worker and a train worker (one a GPU), waits until
each is ready, prints the address with a one-time token, and keeps all of it up. Only this file knows what the
members are; it imports none of them, they are programs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from api.domain.fleet import WorkerBook
from api.domain.settings import Settings, allow_simulation, settings_or_exit
from api.domain.store import Store, migrate, open_store
from api.domain.tokens import LOCAL_PRINCIPAL, TokenBook
from api.stack.broker import NoBrokerError, answers, find_binary, server_command, socket_path
from api.stack.lock import FolderInUseError, FolderLock
from api.stack.member import Member, MemberSpec
from api.stack.supervisor import StackError, StopRequestedError, Supervisor

EXIT_OK, EXIT_FAILED = 0, 1
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_CLIENT_VARIABLES = ("TRAINSHED_URL", "TRAINSHED_TOKEN")


def say(text: str) -> None:
    """Print a line at once; a stack that lost its terminal goes on without."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def warn(text: str) -> None:
    """Print a line that must not be overlooked: red where a person reads it."""
    say(f"\x1b[1;31m{text}\x1b[0m" if sys.stdout.isatty() else text)


class SimulationError(Exception):
    """The data folder is not one for simulated jobs."""


@dataclass(frozen=True)
class Plan:
    """What a start resolved: settings for all members, and where things lie."""

    settings: Settings
    own_broker: bool
    num_gpus: int

    @property
    def run_dir(self) -> Path:
        """Folder of the socket and the connection file."""
        return self.settings.data_dir / "run"

    @property
    def connection(self) -> Path:
        """Where the address and token for programs on this machine are written."""
        return self.run_dir / "connection.json"

    @property
    def url(self) -> str:
        """Address of the service for programs on this machine, whatever stands before it for others."""
        host = self.settings.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.settings.port}"

    @property
    def shown_url(self) -> str:
        """Address of the service for people."""
        return (self.settings.public_url or self.url).rstrip("/")


def make_plan(arguments: argparse.Namespace, base: Settings, environment: Mapping[str, str]) -> Plan:
    """Resolve command line and settings.

    Raises OSError for a port that is taken, NoBrokerError, and SimulationError where simulated jobs would
    come to lie among real ones.
    """
    data_dir = (arguments.data or base.data_dir).absolute()
    host = arguments.host or base.host
    port = free_port(host, base.port if arguments.port is None else arguments.port)
    run_dir = data_dir / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    own_broker = not environment.get("TRAINSHED_REDIS_URL")
    num_gpus = count_gpus(environment)
    values = base.model_dump(exclude_unset=True) | {"data_dir": data_dir, "host": host, "port": port}
    if own_broker:
        values["redis_url"] = f"unix://{socket_path(run_dir)}"
    if num_gpus and not environment.get("TRAINSHED_QUEUE"):
        values["queue"] = "train.g1"
    if arguments.simulate:
        _allow_simulation(data_dir)
        values["simulate"] = True
    return Plan(Settings(**values), own_broker, num_gpus)


def _allow_simulation(data_dir: Path) -> None:
    try:
        allow_simulation(data_dir)
    except ValueError as error:
        raise SimulationError(str(error)) from error


def free_port(host: str, port: int) -> int:
    """Return the port if it is free, or any free one for 0; raises OSError naming a port that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen on {host}:{port}: {error.strerror}; use --port"
            ) from error
        return int(probe.getsockname()[1])


def count_gpus(environment: Mapping[str, str]) -> int:
    """Return how many NVIDIA GPUs the driver shows; 0 without a driver."""
    narrowed = environment.get("CUDA_VISIBLE_DEVICES")
    if narrowed is not None:
        return len([part for part in narrowed.split(",") if part.strip() not in ("", "-1")])
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    command = [tool, "--query-gpu=index", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return len(asked.stdout.split()) if asked.returncode == 0 else 0


def member_environment(settings: Settings, source: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with every setting that was resolved or given."""
    found = {name: value for name, value in source.items() if name not in _CLIENT_VARIABLES}
    for name, value in settings.model_dump(mode="json", exclude_unset=True).items():
        if value is not None:
            found[f"TRAINSHED_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    found["PYTHONPATH"] = str(_PACKAGE_ROOT)
    found["PYTHONUNBUFFERED"] = "1"
    return found


def member_specs(plan: Plan, store: Store, environment: Mapping[str, str]) -> list[list[MemberSpec]]:
    """Return the programs of the stack, in groups that start one after the other."""
    settings, logs = plan.settings, plan.settings.data_dir / "logs"
    workers = WorkerBook(store)

    def serves(pid: int) -> bool:
        return any(slot.pid == pid and slot.state != "gone" for slot in workers.list())

    def worker(name: str, *flags: str) -> MemberSpec:
        command = [sys.executable, "-P", "-m", "worker.app", "--lifeline", *flags]
        log = logs / f"{name.replace(' ', '-')}.log"
        # A drain lets the child checkpoint; the worker needs a moment of its own after it.
        return MemberSpec(name, command, environment, log, serves, stop_within_s=settings.stop_grace_s + 15)

    api = [sys.executable, "-P", "-m", "api.server", "--lifeline"]
    groups = [
        [MemberSpec("api", api, environment, logs / "api.log", lambda _: is_up(f"{plan.url}/readyz"))],
        [
            worker("ingest worker", "--queues", "ingest"),
            *(worker(name, *flags) for name, flags in train_slots(plan.num_gpus)),
        ],
    ]
    if plan.own_broker:
        groups.insert(0, [_broker_spec(plan, environment)])
    return groups


def train_slots(num_gpus: int) -> list[tuple[str, list[str]]]:
    """Return name and flags of each train worker: one a GPU, or one for the CPU."""
    if not num_gpus:
        return [("train worker", ["--queues", "train.cpu"])]
    return [(f"train worker {gpu}", ["--queues", "train.g1", "--slot", str(gpu)]) for gpu in range(num_gpus)]


def _broker_spec(plan: Plan, environment: Mapping[str, str]) -> MemberSpec:
    folder = plan.settings.data_dir / "valkey"
    folder.mkdir(exist_ok=True)
    socket_file = Path(plan.settings.redis_url.removeprefix("unix://"))
    socket_file.unlink(missing_ok=True)
    command = server_command(find_binary(), socket_file, folder)
    log = plan.settings.data_dir / "logs" / "valkey.log"
    return MemberSpec("valkey", command, environment, log, lambda _: answers(plan.settings.redis_url))


def is_up(url: str) -> bool:
    """Tell whether an address answers with success."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def write_connection(plan: Plan, token: str) -> None:
    """Leave address and token for the command line, readable by this user only."""
    temporary = plan.connection.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps({"url": plan.url, "token": token, "pid": os.getpid()}), encoding="utf-8")
    temporary.replace(plan.connection)


def announce(plan: Plan, tokens: TokenBook) -> None:
    """Print where the service is, with a token that is good for one browser session."""
    write_connection(plan, tokens.ensure_local(plan.settings.secrets_dir))
    once = tokens.create(
        LOCAL_PRINCIPAL, kind="once", label="address of the start", lifetime_s=plan.settings.once_token_s
    )
    say(f"data and logs: {plan.settings.data_dir}")
    if plan.settings.simulate:
        warn("SIMULATED: jobs only pretend to train, no weights will come of them")
    say(f"open {plan.shown_url}/?token={once.secret}")
    say("Ctrl-C stops it; jobs that run go on at the next start")


def serve(plan: Plan, lock: FolderLock, *, lifeline: bool) -> int:
    """Run the stack until it is asked to stop; return the exit code."""
    migrate(plan.settings.sql_url)
    store = open_store(plan.settings)
    environment = member_environment(plan.settings, os.environ)
    groups = [
        [Member(spec, keep_open=[lock.fileno]) for spec in group]
        for group in member_specs(plan, store, environment)
    ]
    supervisor = Supervisor(groups, say)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.request_stop())
    if lifeline:
        _follow_lifeline(supervisor)
    try:
        supervisor.start()
        announce(plan, TokenBook(store))
        supervisor.watch()
        say("stopping: runs checkpoint first; a second Ctrl-C kills them")
    except StopRequestedError:
        say("stopping before it was up")
    except StackError as error:
        say(str(error))
        return EXIT_FAILED
    finally:
        plan.connection.unlink(missing_ok=True)
        supervisor.stop()
    say("stopped")
    return EXIT_OK


def _follow_lifeline(supervisor: Supervisor) -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        supervisor.request_stop()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _make_private(data_dir: Path) -> None:
    """Close a data folder to others that was made before, or by hand."""
    try:
        data_dir.chmod(0o700)
    except PermissionError:
        say(f"{data_dir} is another user's: who may read what is in it is theirs to say")


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the stack and keep it up; return the exit code, 2 where an option or a setting is wrong."""
    parser = argparse.ArgumentParser(
        prog="trainshed up", description="Start the whole service on this machine."
    )
    parser.add_argument("--data", type=Path, help="data folder (default: TRAINSHED_DATA_DIR or ./data)")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=_port, help="port to listen on; 0 takes a free one")
    parser.add_argument("--lifeline", action="store_true", help="stop when standard input ends")
    parser.add_argument(
        "--simulate", action="store_true", help="only pretend to train, in a data folder made for that"
    )
    options = parser.parse_args(arguments)
    # All that this and its members write is this user's alone: data sets, tokens, logs.
    os.umask(0o077)
    settings = settings_or_exit("trainshed up")
    data_dir = (options.data or settings.data_dir).absolute()
    try:
        with FolderLock(data_dir) as lock:
            _make_private(data_dir)
            return serve(make_plan(options, settings, os.environ), lock, lifeline=options.lifeline)
    except (FolderInUseError, NoBrokerError, SimulationError) as error:
        say(f"trainshed up: {error}")
    except OSError as error:
        say(f"trainshed up: {error.strerror or error}")
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
