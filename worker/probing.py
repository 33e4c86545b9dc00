"""One claimed probe: a child times a few batches of a run that is only thought of.

It uses the place of a run on its slot, so that the figures are those a run would have. Must not load torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from api.domain.errors import Fenced
from api.domain.failures import Failure, FailureCode
from api.domain.records import Task
from worker.cache import DatasetCache, DatasetFiles, MissingDatasetError
from worker.child import Limits
from worker.errand import Errand, ErrandTools
from worker.fleet import SlotSpec
from worker.standby import trainer_environment


class Probing(Errand):
    """One attempt at one probe, from claim to its end in the book."""

    noun = "probe"
    subject = "figures"

    def __init__(self, task: Task, tools: ErrandTools, slot: SlotSpec, cache: DatasetCache) -> None:
        super().__init__(task, tools)
        self._slot = slot
        self._cache = cache
        self._files: DatasetFiles | None = None

    def run(self) -> None:
        """Do the attempt as any errand, with the dataset held meanwhile."""
        with ExitStack() as held:
            try:
                self._files = held.enter_context(self._cache.hold(self._task.payload["manifest_hash"]))
            except (MissingDatasetError, OSError) as error:
                failure = Failure(FailureCode.SERVICE_ERROR, f"the dataset is not there: {error}")
                with suppress(Fenced):
                    self._tools.book.fail(self._task.id, self._task.attempt, failure)
                return
            super().run()

    @property
    def _timeout_s(self) -> float:
        return self._tools.settings.probe_timeout_s

    def _order(self) -> dict[str, Any]:
        settings, payload, files = self._tools.settings, self._task.payload, self._files
        assert files is not None
        return {
            "config": payload["config"],
            "architecture": payload["architecture"],
            "manifest": str(files.manifest),
            "images_root": str(files.images_root),
            "simulated": settings.simulate,
            "settings": {
                "device": self._slot.device(settings.device),
                "loader_threads": settings.loader_threads,
                "threads": settings.train_threads,
                # To fill one would take longer than what is timed.
                "cache": "none",
            },
        }

    def _limits(self) -> Limits:
        return Limits()

    def _environment(self) -> Mapping[str, str]:
        threads = self._task.payload["config"].get("threads")
        return trainer_environment(self._tools.settings, self._slot, threads)

    def _publish(self, result: dict[str, Any]) -> Callable[[], Task]:
        told = {**result, "worker": self._slot.id}
        return lambda: self._tools.book.finish_probe(self._task.id, self._task.attempt, told)
