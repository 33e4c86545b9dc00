"""What can go wrong between client and service.

ClientError
|-- UnreachableError        no answer, or none that can be read
|-- VersionError            the service is of another major version
|-- IntegrityError     a download whose bytes are not what the service announced
`-- ApiError           the service refused; status, code and problems as it told them
    `-- NotAllowedError     401 or 403

NotEndedError is a TimeoutError: nothing failed, the wait was over before the job was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.client.models import Job


class ClientError(Exception):
    """Any failure of a request; the text is for a person."""


class UnreachableError(ClientError):
    """The service could not be reached, or went away and did not come back."""


class IntegrityError(ClientError):
    """Downloaded bytes do not have the announced size or SHA-256."""


class VersionError(ClientError):
    """The service is of another major version than this client: they would misunderstand each other."""


class ApiError(ClientError):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code") or f"HTTP_{status}")
        self.title = str(problem.get("title") or "the request was refused")
        self.detail = str(problem.get("detail") or "")
        found = problem.get("errors")
        self.errors: list[dict[str, Any]] = (
            [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []
        )
        super().__init__(f"{self.detail or self.title} ({status} {self.code})")


class NotAllowedError(ApiError):
    """The token is missing, wrong, expired or lacks the right."""


class NotEndedError(TimeoutError):
    """A job has not ended in time; it goes on. `job` is what was last heard of it, if anything."""

    def __init__(self, job_id: str, job: Job | None = None) -> None:
        self.job = job
        state = f"is {job.status} and goes on" if job is not None else "goes on"
        super().__init__(f"{job_id} has not ended in time; it {state}")


def error_of(status: int, body: bytes) -> ApiError:
    """Make the error of a non-2xx answer, whatever its body holds."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": body[:200].decode("utf-8", "replace")}
    return (NotAllowedError if status in (401, 403) else ApiError)(status, problem)
