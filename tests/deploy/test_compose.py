"""docker-compose.yml: parses, has no typo, and every service keeps what an operator relies on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.domain.settings import Settings
from api.server import STOP_GRACE_S
from tests.support.shared import ROOT

COMPOSE = ROOT / "docker-compose.yml"
TEXT = COMPOSE.read_text("utf-8")
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
ONE_SHOTS = {"migrate"}
WORKERS = {"ingest", "worker", "worker-gpu"}
OWN = {"migrate", "api"} | WORKERS
# The words of the format that are used here; a word outside this list is a typo until it is added.
SERVICE_KEYS = {
    *("image", "build", "command", "user", "environment", "profiles", "depends_on", "healthcheck"),
    *("volumes", "tmpfs", "shm_size", "networks", "ports", "logging", "deploy", "pids_limit"),
    *("init", "read_only", "cap_drop", "security_opt", "restart", "stop_signal", "stop_grace_period"),
}
SECRET_NAMES = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH|_KEY|DATABASE_URL|REDIS_URL")
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(:[-?][^}]*)?\}")

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def seconds(text: str) -> float:
    """Read a period such as `90s` or `1m30s`."""
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert parts is not None
    return 60 * int(parts[1] or 0) + int(parts[2] or 0)


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {"postgres", "redis", "migrate", "api", "ingest", "worker", "worker-gpu"}


def schema_faults(path: Path) -> str:
    """Return what the public schema of compose files has against a file, nothing if it is one."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_it_is_what_the_schema_of_compose_files_says(tmp_path: Path) -> None:
    assert schema_faults(COMPOSE) == ""
    wrong = tmp_path / COMPOSE.name
    wrong.write_text(TEXT.replace("stop_grace_period:", "stop_grace:"), "utf-8")
    assert "stop_grace" in schema_faults(wrong)


@each_service
def test_no_unknown_words(name: str) -> None:
    assert set(SERVICES[name]) <= SERVICE_KEYS
    assert set(DOCUMENT) - {"services", "networks", "volumes"} == {
        "x-hardened",
        "x-addresses",
        "x-api",
        "x-worker",
    }


@each_service
def test_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    assert service["user"] == ("10001:10001" if name in OWN else name)
    assert not [mount for mount in service["volumes"] if "docker.sock" in mount]


@each_service
def test_has_a_health_check_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOTS:
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "no"
        return
    assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
    assert service["restart"] == "unless-stopped"


@each_service
def test_images_are_pinned(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    kind = "api" if name in ("api", "migrate") else "worker"
    expected = f"trainshed-{kind}:{version}" if name in OWN else SERVICES[name]["image"]
    assert SERVICES[name]["image"] == expected
    assert re.fullmatch(r"[a-z-]+:\d+[\w.-]*", expected)
    if name in OWN:
        assert (ROOT / SERVICES[name]["build"]["dockerfile"]).is_file()


@each_service
def test_no_secret_is_written_down_or_has_a_default(name: str) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        if SECRET_NAMES.search(variable):
            assert re.search(r"\$\{[A-Z_]+:\?[^}]+\}", value), variable
    assert not re.search(r"(PASSWORD|TOKEN|SECRET)[A-Z_]*:-", str(SERVICES[name]))


def test_workers_see_neither_tokens_nor_the_world() -> None:
    for name in WORKERS:
        assert SERVICES[name]["networks"] == ["inside"]
        assert not [mount for mount in SERVICES[name]["volumes"] if "secrets" in mount]
        assert "shm_size" in SERVICES[name]
    assert DOCUMENT["networks"]["inside"] == {"internal": True}


def test_only_the_api_has_a_port_and_on_loopback() -> None:
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["api"]
    assert SERVICES["api"]["ports"] == ["${TRAINSHED_BIND:-127.0.0.1}:${TRAINSHED_PORT:-8000}:8000"]


def test_the_grace_of_a_stop_outlasts_what_the_programs_do_in_it() -> None:
    # As the one-machine stack does: the child's own grace, then a moment for its worker.
    assert seconds(DOCUMENT["x-worker"]["stop_grace_period"]) >= Settings().stop_grace_s + 15
    for name in ("worker", "worker-gpu"):
        assert SERVICES[name]["stop_grace_period"] == DOCUMENT["x-worker"]["stop_grace_period"]
    assert seconds(SERVICES["api"]["stop_grace_period"]) > STOP_GRACE_S + Settings().redis_timeout_s
    assert "TRAINSHED_STOP_GRACE_S" not in TEXT


def test_nothing_starts_before_the_database_is_migrated() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in {"api"} | WORKERS:
        condition = SERVICES[name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"


def test_settings_given_to_the_programs_exist() -> None:
    for name in OWN:
        for variable in SERVICES[name]["environment"]:
            if variable.startswith("TRAINSHED_"):
                assert variable.removeprefix("TRAINSHED_").lower() in Settings.model_fields


def test_the_gpu_worker_is_asked_for_by_its_profile() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "worker-gpu": ["gpu"]
    }
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]


def test_volumes_and_networks_are_declared_and_used() -> None:
    mounts = {mount.split(":")[0] for service in SERVICES.values() for mount in service["volumes"]}
    named = {mount for mount in mounts if not mount.startswith((".", "/"))}
    assert named == set(DOCUMENT["volumes"])
    assert all((ROOT / mount).is_file() for mount in mounts if mount.startswith("."))
    used = {network for service in SERVICES.values() for network in service["networks"]}
    assert used == set(DOCUMENT["networks"])


def test_every_variable_is_in_the_example_and_no_secret_is_filled_in() -> None:
    example = (ROOT / "docker" / "env.example").read_text("utf-8")
    offered = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    wanted = {match[0] for match in VARIABLE.findall(TEXT)} | set(DOCUMENT["x-api"]["build"]["args"])
    assert set(offered) == wanted
    required = {name for name, rule in VARIABLE.findall(TEXT) if rule.startswith(":?")}
    assert required == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert all(offered[name] == "" for name in required)
    for name, rule in VARIABLE.findall(TEXT):
        if rule.startswith(":-"):
            assert rule[2:] == offered[name]


def compose_config(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Let docker-compose read the file, with nothing else of this process's environment."""
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("docker-compose is not installed")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    command = [tool, "--project-directory", str(ROOT), "-f", str(COMPOSE), "--profile", "gpu", "config"]
    return subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    done = compose_config(tmp_path, POSTGRES_PASSWORD="p1", REDIS_PASSWORD="r1")
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    assert set(resolved) == set(SERVICES)
    url = resolved["api"]["environment"]["TRAINSHED_DATABASE_URL"]
    assert url == "postgresql+psycopg://trainshed:p1@postgres:5432/trainshed"


@pytest.mark.parametrize(
    "given", [{}, {"POSTGRES_PASSWORD": "p1"}, {"POSTGRES_PASSWORD": "p1", "REDIS_PASSWORD": ""}]
)
def test_docker_compose_refuses_to_go_on_without_a_password(given: dict[str, str], tmp_path: Path) -> None:
    done = compose_config(tmp_path, **given)
    assert done.returncode != 0
    assert "docker/env.example" in done.stderr
