"""The production periods fit each other, and nonsense is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from api.domain.rules import job_retry_rules
from api.domain.settings import BOOK_NAME, Settings, allow_simulation, explain


def test_production_periods_fit_each_other() -> None:
    s = Settings()
    assert (s.heartbeat_s, s.lease_s) == (2.0, 45.0)
    # A worker may miss several heartbeats, and a write that waits for SQLite's lock, and keep its claim.
    assert s.lease_s >= 4 * s.heartbeat_s
    assert s.lease_s > s.heartbeat_s + s.sqlite_busy_timeout_s
    # A lost worker's job is queued again within 50 s.
    assert s.lease_s + 2 * s.reaper_tick_s <= 50
    # A reaper that was away cannot have missed a whole lease without noticing.
    assert s.reaper_gap_s < s.lease_s / 2
    assert s.reaper_slow_tick_s < s.reaper_gap_s
    # Every retry of a job together waits less than an hour.
    rules = job_retry_rules(s)
    assert sum(rules.pause_s(n) for n in range(1, s.job_retries + 1)) < 3600
    assert s.stream_ttl_running_s > s.stream_ttl_final_s > s.lease_s


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_s": 10.0},
        {"reaper_gap_s": 3.0},
        {"reaper_gap_s": 50.0},
        {"heartbeat_s": 0},
        {"port": 70000},
        {"cache": "tape"},
        {"queue": "ingest"},
        {"unknown": 1},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAINSHED_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TRAINSHED_HEARTBEAT_S", "1")
    settings = Settings()
    assert settings.sql_url == f"sqlite:///{tmp_path}/book.sqlite3"
    assert settings.heartbeat_s == 1.0
    assert settings.attempt_dir("job_x", 2) == tmp_path / "jobs" / "job_x" / "attempts" / "2"


def test_never_is_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().retention_days == 90
    monkeypatch.setenv("TRAINSHED_RETENTION_DAYS", "never")
    monkeypatch.setenv("TRAINSHED_UNHEALTHY_RETRY_S", "60")
    assert (Settings().retention_days, Settings().unhealthy_retry_s) == (None, 60.0)
    with pytest.raises(ValidationError):
        Settings(retention_days=0)


def test_pretending_takes_a_folder_made_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAINSHED_DATA_DIR", str(tmp_path / "sim"))
    monkeypatch.setenv("TRAINSHED_SIMULATE", "true")
    with pytest.raises(ValidationError, match="trainshed up --simulate"):
        Settings()
    allow_simulation(tmp_path / "sim")
    allow_simulation(tmp_path / "sim")
    assert Settings().simulate
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / BOOK_NAME).touch()
    with pytest.raises(ValueError, match="real jobs"):
        allow_simulation(tmp_path / "real")


@pytest.mark.parametrize(
    "text", ["a.example, [::1],b", '["a.example", "[::1]", "b"]', " a.example,,[::1] ,b,"]
)
def test_trusted_hosts_are_a_list_or_names_with_commas(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TRAINSHED_TRUSTED_HOSTS", text)
    assert Settings().trusted_hosts == ("a.example", "[::1]", "b")


def test_the_service_answers_to_its_own_addresses() -> None:
    loopback = {"127.0.0.1", "localhost", "[::1]"}
    assert Settings(host="0.0.0.0").answered_hosts == loopback
    reached = Settings(
        host="fd00::7", public_url="https://Train.example:8443/x", trusted_hosts=("B.example",)
    )
    assert reached.answered_hosts == loopback | {"[fd00::7]", "train.example", "b.example"}


def test_what_may_hold_a_password_is_not_told() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=["pg://ann:secret@h"], port=70000)  # type: ignore[arg-type]
    lines = explain(caught.value)
    assert [line.partition(":")[0] for line in lines] == ["TRAINSHED_DATABASE_URL", "TRAINSHED_PORT"]
    assert "secret" not in "".join(lines) and "got '70000'" in lines[1]
    with pytest.raises(ValidationError) as caught:
        Settings(lease_s=1.0)
    assert explain(caught.value) == ["Value error, lease_s must be at least four times heartbeat_s"]


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("unix:///run/v.sock", "redis+socket:///run/v.sock"),
        ("unix:///run/v.sock?db=1", "redis+socket:///run/v.sock?db=1"),
    ],
)
def test_broker_address(redis_url: str, broker_url: str) -> None:
    assert Settings(redis_url=redis_url).broker_url == broker_url
