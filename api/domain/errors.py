"""What the books refuse, as named errors; the API maps them to problems, the worker to its own steps.

BookError             code, message
|-- NotFound          no such thing, or not this owner's
|-- Conflict          the state of things forbids it; `code` says what
|   |-- Changed       what was to be edited changed since it was read
|   |-- RunExists     an identical run is there, and another was not wished
|   `-- LimitReached  the owner has as much as allowed; later it may be granted
|-- BadCursor         a cursor nobody was given
|-- Fenced            this worker does not own the row any more
`-- StoreUnavailable  the database is away or stayed locked; nothing was written
"""

from __future__ import annotations


class BookError(Exception):
    """A refusal: `code` is stable and machine-readable, `message` is for a person."""

    code = "INTERNAL"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code


class NotFound(BookError):  # noqa: N818
    """There is no such thing, or it belongs to someone else."""

    code = "NOT_FOUND"


class Conflict(BookError):  # noqa: N818
    """The state of things forbids it.

    Codes: NAME_TAKEN, DATASET_IN_USE, DATASET_INVALID, JOB_FINAL, JOB_NOT_FINAL, IDEMPOTENCY_CONFLICT,
    NOT_RETRYABLE.
    """

    code = "CONFLICT"


class Changed(Conflict):
    """The row has another revision than the caller read: nothing was edited."""

    code = "REVISION_MISMATCH"


class RunExists(Conflict):
    """The owner has a job that is the same run; `job_id` names it."""

    code = "RUN_EXISTS"

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"an identical run exists: {job_id} ({status})")
        self.job_id = job_id


class LimitReached(Conflict):
    """The owner has as many of these as allowed; ask again when some have gone."""

    code = "TOO_MANY_QUEUED"


class BadCursor(BookError):  # noqa: N818
    """A cursor that this service did not give out."""

    code = "BAD_CURSOR"


class Fenced(BookError):  # noqa: N818
    """Another attempt owns the row, or it ended: stop the child and discard what it did."""

    code = "FENCED"


class StoreUnavailable(BookError):  # noqa: N818
    """The database is away or stayed locked; nothing of this write was kept. Keep working, try again."""

    code = "STORE_UNAVAILABLE"
