"""What is done with the bytes of an artifact: written beside its place, checked, and put there by rename."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

from api.client.errors import IntegrityError
from api.client.models import Artifact
from api.client.steps import Progress


def artifact_path(job_id: str, artifact: Artifact) -> str:
    """Return where the service has it."""
    return f"/v1/jobs/{job_id}/artifacts/{artifact.name}"


class Download:
    """A file that appears when all of it is there; in a `with` block, whose error leaves nothing."""

    def __init__(self, artifact: Artifact, target: Path, progress: Progress | None) -> None:
        self._artifact = artifact
        self._target = target
        self._progress = progress
        self._digest = hashlib.sha256()
        self._done = 0
        target.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = target.with_name(f".{target.name}.part")
        self._file = self._temporary.open("wb")

    def __enter__(self) -> Self:
        return self

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self._done += len(chunk)
        if self._progress is not None:
            self._progress(self._done, self._artifact.size_bytes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            if error is None:
                self._publish()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _publish(self) -> None:
        if self._digest.hexdigest() != self._artifact.sha256:
            name = self._artifact.name
            raise IntegrityError(f"{name}: the downloaded bytes are not those that were announced")
        self._temporary.replace(self._target)
