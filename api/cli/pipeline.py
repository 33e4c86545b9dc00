"""The steps of a run: bring dataset and model, submit once, wait, fetch, judge.

What becomes known is put into an outcome as soon as it is, so that a run can end anywhere and still be told
of. It knows nothing of options and of how reports look.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from api.cli.gates import (
    EXIT_MISSED,
    NoWorse,
    Requirement,
    Verdict,
    figures_of,
    judge,
    judge_no_worse,
    not_judged,
)
from api.cli.origin import content_hash, find_commit, next_key, submission_key
from api.cli.progress import transfer_bar
from api.cli.recipe import Recipe, placed
from api.cli.reports import ARTIFACTS, Outcome
from api.cli.session import EXIT_CANCELLED, EXIT_FAILED, EXIT_INTERRUPTED, err, fail
from api.cli.sources import (
    Asking,
    architecture_hash,
    bring_architecture,
    bring_dataset,
    dataset_hash,
    find_baselines,
    request_of,
)
from api.cli.watching import Watcher
from api.client import ApiError, Artifact, Client, ClientError, Job, NotEndedError
from api.client.follow import follow
from api.client.patience import GIVE_UP_S, time_left

_FIRST_ANSWER_S = 5.0
_CANCEL_WITHIN_S = 15.0
_LAST_LOOK_S = 1.0
_MOST_KEYS = 50
_WORST_SHOWN = 20


@dataclass(frozen=True)
class Wishes:
    """The options of a run, beside what its recipe says."""

    require: tuple[Requirement, ...] = ()
    no_worse_than: tuple[NoWorse, ...] = ()
    is_baseline_optional: bool = False
    commit: str | None = None
    on_duplicate: str = "new"
    is_forced: bool = False
    give_up_s: float = GIVE_UP_S
    deadline: float | None = None
    cancels_on_interrupt: bool = False
    quiet: bool = False


class Run:
    """One run, step by step; what becomes known goes into `outcome`."""

    def __init__(
        self, client: Client, recipe: Recipe, wishes: Wishes, outcome: Outcome, target: Path
    ) -> None:
        self.client = client
        self.recipe = recipe
        self.wishes = wishes
        self.outcome = outcome
        self.target = target
        self.asking = Asking(client, wishes.give_up_s, wishes.deadline)
        self.require = (*recipe.require, *wishes.require)
        self.no_worse_than = (*recipe.no_worse_than, *wishes.no_worse_than)
        self._others: list[list[Job]] = []

    def go(self) -> None:
        """Do all of it; the outcome has the exit code, or an exception says what stood in the way."""
        self.outcome.service = self.client.url
        self.outcome.commit = self.wishes.commit or find_commit(self.recipe.path.parent, os.environ)
        try:
            self._prepare()
            self._submit()
            self._wait()
        except KeyboardInterrupt:
            self._interrupted()
            return
        self._collect()
        self._judge()

    def _prepare(self) -> None:
        # Whether it is there at all is soon known; only what goes away later is waited for.
        first = min(_FIRST_ANSWER_S, self.wishes.give_up_s)
        Asking(self.client, first, self.wishes.deadline)(lambda: self.client.request("GET", "/v1/queues"))
        optional = self.wishes.is_baseline_optional
        self._others = find_baselines(self.asking, self.no_worse_than, optional=optional)
        dataset = bring_dataset(self.asking, self.recipe, quiet=self.wishes.quiet)
        self.outcome.dataset = dataset
        if dataset.status == "invalid":
            problems = self.asking(lambda: self.client.dataset_problems(dataset.id))[:_WORST_SHOWN]
            self.outcome.message, self.outcome.problems = "the dataset cannot be used", problems
            fail("the dataset cannot be used", EXIT_FAILED, problems=problems)
        self.outcome.architecture = bring_architecture(self.asking, self.recipe)

    def _submit(self) -> None:
        dataset, architecture = self.outcome.dataset, self.outcome.architecture
        assert dataset is not None and architecture is not None
        request = request_of(self.recipe, dataset, architecture)
        content = content_hash(dataset_hash(dataset), architecture_hash(architecture), request)
        key = submission_key(content, request, self.outcome.commit)
        if self.wishes.on_duplicate != "new":
            request["on_duplicate"] = self.wishes.on_duplicate
        if self.wishes.is_forced:
            key = next_key(key, uuid.uuid4().hex)
        for _ in range(_MOST_KEYS):
            spent_on = self._submit_as(key, request)
            if spent_on is None:
                return
            key = next_key(key, spent_on)
        fail(f"{_MOST_KEYS} runs like this one have failed; --force trains again", EXIT_FAILED)

    def _submit_as(self, key: str, request: Mapping[str, Any]) -> str | None:
        """Submit under a key; return None, or what the key is spent on: a job without a result.

        So a pipeline that is tried again after a failure trains again, and one after a success does not.
        """
        try:
            made = self.asking(lambda: self.client.submission(request, idempotency_key=key))
        except ApiError as error:
            if error.code == "IDEMPOTENCY_CONFLICT":
                return "deleted"
            error.errors = placed(self.recipe, error.errors)
            raise
        job, is_reused = made.job, made.is_reused
        if is_reused and job.status in ("failed", "cancelled"):
            return job.id
        self.outcome.job, self.outcome.idempotency_key, self.outcome.is_reused = job, key, is_reused
        self.outcome.fingerprint = job.fingerprint
        about = f"{job.id}: an identical run exists ({job.status}); --force trains again"
        err.print(about if is_reused else job.id, markup=False)
        return None

    def _wait(self) -> None:
        job = self._job()
        give_up_s, deadline = self.wishes.give_up_s, self.wishes.deadline
        try:
            if not job.is_final:
                Watcher(err).watch(follow(self.client, job.id, give_up_s=give_up_s, deadline=deadline))
            left = None if deadline is None else max(_LAST_LOOK_S, time_left(deadline))
            self.outcome.job = self.client.wait_for_job(job.id, timeout_s=left, give_up_s=give_up_s)
        except NotEndedError as error:
            self.outcome.job = error.job or self._seen(job)
            raise

    def _seen(self, job: Job) -> Job:
        with suppress(ClientError):
            return self.client.job(job.id)
        return job

    def _job(self) -> Job:
        assert self.outcome.job is not None
        return self.outcome.job

    def _interrupted(self) -> None:
        job = self.outcome.job
        self.outcome.exit_code, self.outcome.message = EXIT_INTERRUPTED, "interrupted"
        if job is not None and not job.is_final:
            self.outcome.message = f"interrupted; {job.id} goes on"
            if self.wishes.cancels_on_interrupt:
                self._cancel(job)
        err.print(f"trainshed: {self.outcome.message}", markup=False)

    def _cancel(self, job: Job) -> None:
        asking = Asking(self.client, _CANCEL_WITHIN_S)
        try:
            self.outcome.job = asking(lambda: self.client.cancel(job.id))
            self.outcome.exit_code = EXIT_CANCELLED
            self.outcome.message = f"interrupted; {job.id} is cancelled"
            self.outcome.job = self.client.wait_for_job(job.id, timeout_s=_CANCEL_WITHIN_S)
        except TimeoutError:
            pass
        except ClientError as error:
            self.outcome.message = f"interrupted; {job.id} could not be cancelled: {error}"

    def _collect(self) -> None:
        job, asking = self._job(), Asking(self.client, self.wishes.give_up_s)
        self.outcome.rows = asking(lambda: self.client.metrics(job.id))
        self.outcome.figures = figures_of(job.best, self.outcome.rows)
        for artifact in asking(lambda: self.client.artifacts(job.id)):
            path = self._fetch(asking, job, artifact)
            self.outcome.artifacts.append(_entry(artifact, path.relative_to(self.target)))

    def _fetch(self, asking: Asking, job: Job, artifact: Artifact) -> Path:
        path = self.target / ARTIFACTS / _inside(artifact.name)
        with transfer_bar(artifact.name, quiet=self.wishes.quiet) as bar:
            return asking(lambda: self.client.download(job.id, artifact, path, bar))

    def _judge(self) -> None:
        job, outcome = self._job(), self.outcome
        if job.status != "succeeded":
            gates: tuple[Requirement | NoWorse, ...] = (*self.require, *self.no_worse_than)
            outcome.verdicts = [not_judged(gate, f"the job is {job.status}") for gate in gates]
            outcome.exit_code = EXIT_FAILED if job.status == "failed" else EXIT_CANCELLED
            return
        outcome.verdicts = [judge(gate, outcome.figures) for gate in self.require]
        for gate, others in zip(self.no_worse_than, self._others, strict=True):
            other = next((one for one in others if one.id != job.id), None)
            outcome.verdicts.append(self._compared(gate, job, other))
        if any(verdict.passed is False for verdict in outcome.verdicts):
            outcome.exit_code = EXIT_MISSED

    def _compared(self, gate: NoWorse, job: Job, other: Job | None) -> Verdict:
        if other is None:
            return judge_no_worse(gate, self.outcome.figures, None, None)
        rows = Asking(self.client, self.wishes.give_up_s)(lambda: self.client.metrics(other.id))
        verdict = judge_no_worse(gate, self.outcome.figures, figures_of(other.best, rows), other.id)
        if _field(other, "dataset") == _field(job, "dataset"):
            return verdict
        return replace(verdict, note=f"{verdict.note}, measured on another dataset")


def _field(job: Job, name: str) -> Any:
    return (job.model_extra or {}).get(name)


def _inside(name: str) -> Path:
    """Return an artifact's name as a path that stays in its folder: a server does not choose folders here."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
    return Path(*parts) if parts else Path("artifact")


def _entry(artifact: Artifact, path: Path) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "kind": artifact.kind,
        "path": path.as_posix(),
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
    }
