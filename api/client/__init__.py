"""A typed client of the service's HTTP interface, blocking or for asyncio, for scripts and the command line.

It shares no code with the server: it knows addresses, JSON and event streams, and nothing of SQL or queues.
"""

from api.client.aio import AsyncClient
from api.client.errors import (
    ApiError,
    ClientError,
    NotAllowedError,
    NotEndedError,
    UnreachableError,
    VersionError,
)
from api.client.http import Client
from api.client.models import (
    Architecture,
    Artifact,
    Attempt,
    Dataset,
    Event,
    Job,
    Probe,
    Queue,
    Submission,
    Weights,
    Worker,
)

__all__ = [
    "ApiError",
    "Architecture",
    "Artifact",
    "AsyncClient",
    "Attempt",
    "Client",
    "ClientError",
    "Dataset",
    "Event",
    "Job",
    "NotAllowedError",
    "NotEndedError",
    "Probe",
    "Queue",
    "Submission",
    "UnreachableError",
    "VersionError",
    "Weights",
    "Worker",
]
