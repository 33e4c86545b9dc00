"""Settings: what changes only time or place, never the numbers of a run.

Read once from the environment (prefix TRAINSHED_) or given as values by tests and by `trainshed up`. Knows no
field of a run's config; whoever needs a period takes it from here, so that tests can run with short ones.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from api.domain import wire

SECOND = 1.0
HOUR = 3600.0
DAY = 24 * HOUR
MIB = 1 << 20
PREFIX = "TRAINSHED_"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
EXIT_USAGE = 2
BOOK_NAME = "book.sqlite3"
SIMULATION_MARK = "SIMULATED"
# What may hold a password is not repeated to the terminal.
_UNTOLD = frozenset({"database_url", "redis_url"})


def _as_hosts(value: object) -> object:
    """Read names separated by commas, or a JSON list, as the environment may have them."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return tuple(name for part in value.split(",") if (name := part.strip()))


def _as_never(value: object) -> object:
    """Read `never` as None, which the environment has no word for."""
    return None if isinstance(value, str) and value.strip().lower() == "never" else value


OrNever = Annotated[float | None, Field(gt=0), BeforeValidator(_as_never)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_hosts)]


class Settings(BaseSettings):
    """Every period, bound and address of the service; frozen, unknown names refused."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    # Places.
    data_dir: Path = Field(Path("data"), description="Folder of everything the service keeps.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; SQLite in the data folder if absent.")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey; unix:///path allowed.")
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API; 0 takes a free one.")
    public_url: str | None = Field(None, description="How people reach the API, if not by host and port.")
    trusted_hosts: Hosts = Field(
        LOOPBACK, description="Host headers that are answered beside this machine's own: names with commas."
    )
    probe_timeout_s: float = Field(120.0, gt=0, description="Longest time of one probe of a job's batches.")
    public_badges: bool = Field(
        False, description="Whether badges are shown to whoever asks, without a token."
    )

    # The lease of a claim, and the loops that watch over it.
    heartbeat_s: float = Field(2.0, gt=0, description="How often a worker renews its claim.")
    lease_s: float = Field(45.0, gt=0, description="A claim not renewed for this long is taken back.")
    reaper_tick_s: float = Field(2.0, gt=0, description="How often claims are looked at.")
    reaper_slow_tick_s: float = Field(2.0, gt=0, description="A tick renewed slower than this forgets all.")
    reaper_gap_s: float = Field(15.0, gt=0, description="A tick later than this after the last forgets all.")
    dispatcher_tick_s: float = Field(
        1.0, gt=0, description="How often the queues are compared with the book."
    )
    collector_tick_s: float = Field(300.0, gt=0, description="How often expired rows and files are removed.")
    singleton_s: float = Field(
        10.0, gt=0, description="A loop whose own row stood still this long is replaced."
    )
    max_nudges: int = Field(100, ge=1, description="Most messages kept waiting in one queue.")

    # Retries.
    job_retries: int = Field(5, ge=0, description="How many failures of a job are retried.")
    task_retries: int = Field(2, ge=0, description="How many failures of a task are retried.")
    retry_backoff_s: float = Field(
        10.0,
        ge=0,
        description="Wait before the first retry; doubled for each more, up to a fifth longer or shorter.",
    )
    retry_backoff_max_s: float = Field(600.0, ge=0, description="Longest wait before a retry.")
    max_running_per_owner: int | None = Field(None, ge=1, description="Running jobs one owner may have.")
    max_queued_per_owner: int | None = Field(
        10_000, ge=1, description="Queued and paused jobs one owner may have."
    )
    max_runtime_s: int | None = Field(
        None, ge=1, description="Longest running time of a job over all attempts, unless it names its own."
    )
    idempotency_keep_s: float = Field(DAY, gt=0, description="How long an idempotency key is remembered.")

    # The worker and its child.
    queue: str = Field(
        wire.QUEUE_TRAIN_CPU,
        pattern=wire.QUEUE_TRAIN_PATTERN,
        description="Queue jobs are put in unless they name one.",
    )
    stop_grace_s: float = Field(60.0, gt=0, description="From the polite stop of a child to its kill.")
    stall_s: float = Field(600.0, gt=0, description="Training without a batch for this long is a hang.")
    stall_phase_s: float = Field(
        HOUR, gt=0, description="Any other phase (preparing, validating, ...) without a sign is a hang."
    )
    unhealthy_retry_s: OrNever = Field(
        900.0, description="An unhealthy slot tries again after this; never: once a person clears it."
    )
    cache_max_bytes: int | None = Field(
        None, ge=0, description="Size the cache of unpacked datasets is kept under; its default if absent."
    )
    tensorboard: bool = Field(False, description="Leave TensorBoard files among the artifacts.")
    simulate: bool = Field(
        False, description="Pretend to train; refused unless the data folder was made for that."
    )
    checkpoint_every_s: float = Field(60.0, gt=0, description="Time between checkpoints of a run.")
    train_threads: int = Field(2, ge=1, description="Threads of one trainer.")
    loader_threads: int = Field(1, ge=1, description="Threads that prepare batches.")
    cache: Literal["none", "ram", "disk"] = Field("ram", description="Where resized images are kept.")
    prestart: bool = Field(
        True,
        description="Keep a trainer loaded before there is a job; saves seconds, costs about 300 MB a slot.",
    )
    device: str = Field("auto", description="Device of the trainer: auto, cpu, or cuda:N.")
    omp_wait_policy: Literal["active", "passive"] = Field(
        "passive", description="OpenMP policy of a trainer."
    )
    ingest_timeout_s: float = Field(HOUR, gt=0, description="Longest time one ingest may take.")
    ingest_memory_bytes: int = Field(
        4096 * MIB, ge=64 * MIB, description="Address space of the ingest child."
    )
    weights_timeout_s: float = Field(600.0, gt=0, description="Longest time one import of weights may take.")
    weights_memory_bytes: int = Field(
        12 * 1024 * MIB, ge=4096 * MIB, description="Address space of the child that imports weights."
    )

    # Retention.
    retention_days: OrNever = Field(
        90.0, description="Days the files of a finished job's attempts are kept; or never (deleted)."
    )

    # Bounds of what is sent in.
    max_upload_bytes: int = Field(20 * 1024 * MIB, ge=1, description="Largest dataset archive.")
    max_weights_bytes: int = Field(2048 * MIB, ge=1, le=2048 * MIB, description="Largest file of weights.")
    max_dataset_bytes_per_owner: int | None = Field(
        None, ge=1, description="Most bytes of archives, weights and uploads one owner may have."
    )
    upload_expires_s: float = Field(
        DAY, gt=0, description="An upload in pieces that stood still this long is removed."
    )
    low_water_bytes: int = Field(
        1024 * MIB, ge=0, description="Most disk space that uploads must leave free."
    )
    low_water_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the disk that uploads must leave free, up to that size."
    )
    max_unpacked_bytes: int = Field(60 * 1024 * MIB, ge=1, description="Largest sum of unpacked files.")
    max_entries: int = Field(500_000, ge=1, description="Most entries in an archive.")
    max_architecture_bytes: int = Field(256 * 1024, ge=1, description="Largest model YAML.")
    max_json_bytes: int = Field(1 * MIB, ge=1, description="Largest JSON body.")

    # The wire.
    stream_max_events: int = Field(20_000, ge=10, description="Length at which a job's stream is cut.")
    stream_ttl_running_s: float = Field(
        7 * DAY, gt=0, description="Life of a stream, renewed with each batch."
    )
    stream_ttl_final_s: float = Field(DAY, gt=0, description="Life of a stream after the end of its job.")
    redis_timeout_s: float = Field(5.0, gt=0, description="Socket timeout towards Redis.")
    sqlite_busy_timeout_s: float = Field(
        15.0, gt=0, description="How long SQLite waits for its lock, and PostgreSQL for an answer."
    )

    # The browser.
    session_s: float = Field(7 * DAY, gt=0, description="Life of a browser session.")
    once_token_s: float = Field(HOUR, gt=0, description="Life of a token that is good for one session.")
    sse_ping_s: float = Field(15.0, gt=0, description="Silence after which an event stream says it lives.")
    long_poll_max_s: float = Field(60.0, ge=0, description="Longest wait a `Prefer: wait` is granted.")

    @model_validator(mode="after")
    def _periods_fit(self) -> Self:
        if self.lease_s < 4 * self.heartbeat_s:
            raise ValueError("lease_s must be at least four times heartbeat_s")
        if self.reaper_gap_s < 2 * self.reaper_tick_s:
            raise ValueError("reaper_gap_s must be at least twice reaper_tick_s")
        if self.reaper_gap_s >= self.lease_s:
            raise ValueError("reaper_gap_s must be under lease_s")
        return self

    @model_validator(mode="after")
    def _simulation_is_meant(self) -> Self:
        """Refuse to pretend by an environment variable alone: jobs of people must never end as simulated."""
        if self.simulate and not (self.data_dir / SIMULATION_MARK).is_file():
            raise ValueError("simulate needs a data folder made for it: start with `trainshed up --simulate`")
        return self

    @property
    def answered_hosts(self) -> frozenset[str]:
        """Host headers the API answers, in lower case: the trusted ones, loopback, and its own addresses.

        Loopback stays whatever is trusted: the stack and health checks ask there, and no foreign page can.
        """
        own = {self.host} - {"0.0.0.0", "::"}
        if self.public_url is not None:
            own.add(urlsplit(self.public_url).hostname or "")
        bracketed = {f"[{name}]" if ":" in name else name for name in own if name}
        return frozenset(name.lower() for name in {*self.trusted_hosts, *LOOPBACK, *bracketed})

    @property
    def sql_url(self) -> str:
        """SQLAlchemy URL of the book."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / BOOK_NAME}"

    @property
    def broker_url(self) -> str:
        """The Redis address in the spelling Celery wants."""
        if self.redis_url.startswith("unix://"):
            return "redis+socket://" + self.redis_url.removeprefix("unix://")
        return self.redis_url

    @property
    def blobs_dir(self) -> Path:
        """Root of the blob store."""
        return self.data_dir.absolute() / "blobs"

    @property
    def uploads_dir(self) -> Path:
        """Folder of uploads that come in pieces; on one file system with the blobs they end as a rename."""
        return self.data_dir.absolute() / "uploads"

    @property
    def images_root(self) -> Path:
        """Folder under which a manifest's images lie as <sha256[:2]>/<sha256>."""
        return self.blobs_dir / "sha256"

    @property
    def jobs_dir(self) -> Path:
        """Folder of the attempts' folders."""
        return self.data_dir.absolute() / "jobs"

    @property
    def tasks_dir(self) -> Path:
        """Folder of the folders in which task children work."""
        return self.data_dir.absolute() / "tasks"

    @property
    def cache_dir(self) -> Path:
        """Folder of dataset caches."""
        return self.data_dir.absolute() / "cache" / "datasets"

    @property
    def secrets_dir(self) -> Path:
        """Folder of tokens, mode 0700."""
        return self.data_dir.absolute() / "secrets"

    def attempt_dir(self, job_id: str, attempt: int) -> Path:
        """Return the folder of one attempt of a job."""
        return self.jobs_dir / job_id / "attempts" / str(attempt)


def allow_simulation(data_dir: Path) -> None:
    """Mark a data folder as one for simulated jobs; for tests and `trainshed up --simulate` alone.

    Raises ValueError for a folder with a book that was not made for it.
    """
    mark = data_dir / SIMULATION_MARK
    if mark.is_file():
        return
    if (data_dir / BOOK_NAME).exists():
        raise ValueError(f"{data_dir} holds real jobs; simulate in a folder of its own")
    data_dir.mkdir(parents=True, exist_ok=True)
    mark.write_text("Jobs in this folder are simulated: they train no network.\n", encoding="utf-8")


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read once from the environment."""
    return Settings()


def settings_or_exit(program: str) -> Settings:
    """Return the settings of this process; wrong ones are told, a line each, and end it with code 2."""
    try:
        return get_settings()
    except (ValidationError, SettingsError) as error:
        for line in explain(error):
            print(f"{program}: {line}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def explain(error: ValidationError | SettingsError) -> list[str]:
    """Return what is wrong with settings, a line for each."""
    if not isinstance(error, ValidationError):
        return [str(error)]
    lines = []
    for item in error.errors(include_url=False):
        name = ".".join(map(str, item["loc"]))
        told = f" (got {str(item['input'])[:80]!r})" if name and name not in _UNTOLD else ""
        lines.append(f"{PREFIX}{name.upper()}: {item['msg']}{told}" if name else item["msg"])
    return lines
