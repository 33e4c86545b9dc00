"""A client and a service of different versions: told of, or refused, by the first answer."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from api.cli.main import app
from api.client import Client, VersionError
from api.client.versions import HEADER, client_version, distance
from tests.api.client.fake_service import TOKEN, FakeService, running

MAJOR, MINOR = (int(part) for part in client_version().split(".")[:2])


@pytest.mark.parametrize(
    ("mine", "other", "apart"),
    [
        ("1.2.3", "1.2.9", "none"),
        ("1.2.3", "1.3.0", "minor"),
        ("1.2.3", "2.2.3", "major"),
        ("1.2.3", "unknown", "none"),
        ("1", "2", "none"),
        ("1.2.dev1+abc", "1.x.2", "none"),
    ],
)
def test_the_distance_is_told_by_the_first_two_numbers(mine: str, other: str, apart: str) -> None:
    assert distance(mine, other) == distance(other, mine) == apart


def test_another_minor_is_told_once_and_another_major_refused() -> None:
    service, notes = FakeService(), list[str]()
    with running(service) as url, Client(url, TOKEN, on_note=notes.append) as client:
        client.job("job_1")
        assert service.requests[0][2]["user-agent"] == f"trainshed-client/{client_version()}"
        service.headers = {HEADER: f"{MAJOR}.{MINOR + 1}.0"}
        client.job("job_1")
        client.job("job_1")
        assert len(notes) == 1 and f"version {MAJOR}.{MINOR + 1}.0" in notes[0]
        service.headers = {HEADER: f"{MAJOR + 1}.0.0"}
        for _ in range(2):
            with pytest.raises(VersionError, match="same major version"):
                client.job("job_1")


@pytest.mark.parametrize(("other", "code"), [(f"{MAJOR}.{MINOR + 1}.0", 0), (f"{MAJOR + 1}.0.0", 2)])
def test_the_command_line_warns_or_ends_as_usage(other: str, code: int) -> None:
    service = FakeService()
    service.headers = {HEADER: other}
    with running(service) as url:
        environment = {"TRAINSHED_URL": url, "TRAINSHED_TOKEN": TOKEN}
        result = CliRunner().invoke(app, ["jobs", "show", "job_1"], env=environment)
    assert (result.exit_code, result.stderr.count(f"is of version {other}")) == (code, 1)
