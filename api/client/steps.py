"""What a client does, apart from how it waits: steps that are the same with and without `await`.

A plan is a generator that yields steps, is sent their results, and returns what a method returns. One driver
carries steps out at once, another awaits them; errors of a step are raised in the plan, where patience is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from pydantic import ValidationError

from api.client.errors import UnreachableError
from api.client.models import _Answer

T = TypeVar("T")
A = TypeVar("A", bound=_Answer)
Progress = Callable[[int, int], None]
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Piece:
    """A part of a file as the body of a request; `progress` is told how far the file is sent, of how much."""

    path: Path
    offset: int
    length: int
    progress: Progress | None = None

    def chunks(self) -> Iterator[bytes]:
        """Read it bit by bit."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.length
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                yield chunk
                left -= len(chunk)
                if self.progress is not None:
                    self.progress(self.offset + self.length - left, size)


@dataclass(frozen=True)
class Send:
    """A request; its result is the 2xx answer. `options` are httpx's, its `content` may be a Piece."""

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rest:
    """A pause."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """A function that takes a while without the network; its result is what it returns."""

    call: Callable[[], Any]


Step = Send | Rest | Work
Plan = Generator[Step, Any, T]


def ask(method: str, path: str, **options: Any) -> Plan[httpx.Response]:
    """Send a request and return its answer."""
    answer: httpx.Response = yield Send(method, path, options)
    return answer


def one(kind: type[A], method: str, path: str, **options: Any) -> Plan[A]:
    """Send a request and return its answer as a value; raises UnreachableError for one of another service."""
    return parsed(kind, (yield from ask(method, path, **options)))


def parsed(kind: type[A], answer: httpx.Response) -> A:
    """Read an answer as a value."""
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        url = f"{answer.url.scheme}://{answer.url.netloc.decode()}"
        raise UnreachableError(f"{url} does not answer like this service: {told}") from error


@dataclass
class Pages(Generic[A]):
    """A list that comes page by page, wherever its items go; used once."""

    kind: type[A]
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    has_more: bool = True

    def next_page(self) -> Plan[list[A]]:
        """Return the items of the next page."""
        page = (yield from ask("GET", self.path, params=dict(self.params))).json()
        self.params["cursor"], self.has_more = page.get("next"), bool(page.get("next"))
        return [self.kind.model_validate(item) for item in page["items"]]

    def everything(self) -> Plan[list[A]]:
        """Return the items of all pages."""
        found: list[A] = []
        while self.has_more:
            found += yield from self.next_page()
        return found
