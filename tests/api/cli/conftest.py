"""The command line against a scripted server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from api.cli.main import app
from tests.api.client.fake_service import TOKEN, FakeService, running

Run = Callable[..., Result]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def run(service: FakeService) -> Iterator[Run]:
    with running(service) as url:

        def invoke(*arguments: str) -> Result:
            environment = {"TRAINSHED_URL": url, "TRAINSHED_TOKEN": TOKEN}
            return CliRunner().invoke(app, list(arguments), env=environment)

        yield invoke
