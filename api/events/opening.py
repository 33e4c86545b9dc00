"""Open the history of a job for a caller: folders, archive and stream, found through the books.

It must not know HTTP.
"""

from __future__ import annotations

from api.access.principal import owner_filter
from api.domain.records import Principal
from api.events.history import JOURNAL_NAME, History
from api.services import Services


def history_of(service: Services, caller: Principal, job_id: str) -> History:
    """Return a job's history; raises NotFound. Where attempts archived their journals is asked once, here."""
    logs = service.jobs.book.logs(job_id, JOURNAL_NAME, owner_filter(caller))
    archived = {attempt: service.blobs.path(log.sha256) for attempt, log in logs.items()}
    folder = service.settings.jobs_dir / job_id / "attempts"
    return History(folder, job_id, service.hub.streams, archived)
