"""A small HTTP server that speaks the service's interface from scripted answers, for client and CLI."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "ts_right"
BROKEN = 0
WEIGHTS = b"weights" * 1000
DATASET = {"id": "ds_1", "name": "cells", "status": "ready", "splits": {"train": 3, "val": 1, "test": 0}}
DATASET |= {
    "num_boxes": 12,
    "num_classes": 2,
    "classes": ["a", "b"],
    "problems": {"errors": 0, "warnings": 1},
}
JOB: dict[str, Any] = {"id": "job_1", "name": "first", "status": "queued", "attempt": 0}
VERBS = ("cancel", "stop", "pause")
ATTEMPT = {"attempt": 1, "worker": "h/train.cpu/0", "started_at": 1000.0, "finished_at": 1200.0}
ATTEMPT |= {"outcome": "failed", "code": "CRASHED", "exit_code": 1}
WORKER = {"id": "h/train.g1/0", "queue": "train.g1", "state": "idle", "seen_at": 1000.0, "reason": None}
QUEUE = {"name": "train.g1", "queued": 2, "running": 1, "workers": 1, "idle": 0, "median_run_s": 200.0}
PLAN = {"num_parameters": 1234, "gflops": 0.5, "strides": [8, 16], "num_classes": 10}
PUBLIC = [{"name": "yolov5n", "text": "nc: 80\n"}, {"name": "hub/yolov5-p2", "text": "nc: 81\n"}]
WARNING = {"code": "LABEL_ABOVE_ONE", "severity": "warning", "file": "labels/a.txt", "line": 3}
WARNING |= {"value": "1.02", "message": "above 1", "count": 2}


def event_text(kind: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    """Return one Server-Sent Event."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


class FakeService:
    """What the server answers, to be changed by tests, and what it was asked."""

    def __init__(self) -> None:
        self.job = dict(JOB)
        self.final: dict[str, Any] = JOB | {"status": "succeeded", "best": {"map50": 0.91, "map50_95": 0.6}}
        self.dataset = dict(DATASET)
        self.attempts: list[dict[str, Any]] = [ATTEMPT]
        self.workers: list[dict[str, Any]] = [dict(WORKER)]
        self.queues: list[dict[str, Any]] = [dict(QUEUE)]
        self.problems: list[dict[str, Any]] = [WARNING]
        # One list of chunks a connection, a number for so many seconds of silence; after the last a 204.
        self.streams: list[list[bytes | float]] = []
        # Statuses that the next requests of a path get instead of an answer.
        self.failing: dict[str, list[int]] = {}
        self.failure_code = "AWAY"
        self.taken_names: set[str] = set()
        # More headers of every answer in one piece.
        self.headers: dict[str, str] = {}
        # The problem that submissions get instead of a job.
        self.job_refusal: dict[str, Any] | None = None
        self.refuse: tuple[int, dict[str, Any]] | None = None
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.wait_for_stop = threading.Event()

    def asked(self, method: str, path: str) -> list[tuple[dict[str, str], bytes]]:
        """Return headers and body of the requests of one kind."""
        return [(h, b) for m, p, h, b in self.requests if m == method and p.split("?")[0] == path]


def _routes(service: FakeService, method: str, path: str) -> tuple[int, Any]:
    answers: dict[tuple[str, str], tuple[int, Any]] = {
        ("PUT", "/v1/datasets"): (202, service.dataset | {"status": "ingesting"}),
        ("GET", "/v1/datasets"): (200, {"items": [service.dataset], "next": None}),
        ("GET", "/v1/datasets/ds_1"): (200, service.dataset),
        ("DELETE", "/v1/datasets/ds_1"): (204, None),
        ("POST", "/v1/datasets/ds_1/confirm"): (202, service.dataset | {"status": "ingesting"}),
        ("POST", "/v1/datasets/ds_1/retry"): (202, service.dataset | {"status": "ingesting"}),
        ("GET", "/v1/datasets/ds_1/diff"): (200, {"images_added": {"count": 1, "first": []}}),
        ("GET", "/v1/architectures/arch_1/diff"): (200, {"rows": []}),
        ("GET", "/v1/datasets/ds_1/problems"): (200, {"items": service.problems, "truncated": False}),
        ("POST", "/v1/architectures"): (201, {"id": "arch_1", "name": "tiny"} | PLAN),
        ("POST", "/v1/architectures/check"): (200, PLAN),
        ("GET", "/v1/architectures/public"): (200, {"items": PUBLIC}),
        ("POST", "/v1/jobs"): (201, service.job),
        ("POST", "/v1/jobs/probe"): (202, {"id": "task_1", "status": "queued"}),
        ("DELETE", "/v1/probes/task_1"): (204, None),
        ("GET", "/v1/jobs/job_1"): (200, service.final),
        **{("POST", f"/v1/jobs/job_1/{verb}"): (202, service.job | {"wish": verb}) for verb in VERBS},
        ("POST", "/v1/jobs/job_1/activate"): (200, service.job),
        ("POST", "/v1/jobs/job_1/rerun"): (201, service.job | {"parent": "job_1"}),
        ("PATCH", "/v1/jobs/job_1"): (200, service.job | {"priority": 5}),
        ("DELETE", "/v1/jobs/job_1"): (204, None),
        ("GET", "/v1/jobs/job_1/attempts"): (200, {"items": service.attempts}),
        ("GET", "/v1/workers"): (200, {"items": service.workers}),
        ("GET", "/v1/queues"): (200, {"items": service.queues}),
        ("POST", "/v1/workers/h/train.g1/0/clear"): (200, next(iter(service.workers), None)),
        ("GET", "/v1/jobs/job_1/artifacts"): (200, {"items": [_artifact()], "next": None}),
    }
    missing = {"title": "not found", "code": "NOT_FOUND", "detail": f"no {path}"}
    return answers.get((method, path), (404, missing))


def _artifact() -> dict[str, Any]:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    return {"name": "best.pt", "kind": "weights", "size_bytes": len(WEIGHTS), "sha256": digest}


def _handler(service: FakeService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in service.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _serve(self) -> None:
            path = urlsplit(self.path).path
            headers = {key.lower(): value for key, value in self.headers.items()}
            service.requests.append((self.command, self.path, headers, self._body()))
            if headers.get("authorization") != f"Bearer {TOKEN}":
                problem = {"title": "no", "code": "TOKEN_INVALID", "detail": "wrong token"}
                self._send(401, json.dumps(problem).encode(), "application/problem+json")
            elif service.failing.get(path):
                self._fail(service.failing[path].pop(0))
            elif service.refuse is not None:
                status, problem = service.refuse
                self._send(status, json.dumps(problem).encode(), "application/problem+json")
            elif self.command in ("POST", "PUT") and self._name() in service.taken_names:
                problem = {"title": "taken", "code": "NAME_TAKEN", "detail": "other content has that name"}
                self._send(409, json.dumps(problem).encode(), "application/problem+json")
            elif path == "/v1/jobs/job_1/events":
                self._stream()
            elif path == "/v1/jobs/job_1/artifacts/best.pt":
                self._send(200, WEIGHTS, "application/octet-stream")
            elif path == "/v1/jobs":
                self._jobs()
            else:
                status, answer = _routes(service, self.command, path)
                self._send(status, b"" if answer is None else json.dumps(answer).encode())

        def _fail(self, status: int) -> None:
            if status != BROKEN:
                problem = {"title": "not now", "code": service.failure_code, "detail": "not now"}
                self._send(status, json.dumps(problem).encode(), "application/problem+json")

        def _name(self) -> str:
            return parse_qs(urlsplit(self.path).query).get("name", [""])[0]

        def _jobs(self) -> None:
            if self.command == "POST" and service.job_refusal is not None:
                self._send(409, json.dumps(service.job_refusal).encode(), "application/problem+json")
                return
            if self.command == "POST":
                self._send(201, json.dumps(service.job).encode())
                return
            cursor = parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0]
            page = {"items": [service.job | {"id": f"job_{cursor}"}], "next": "1" if cursor == "0" else None}
            self._send(200, json.dumps(page).encode())

        def _stream(self) -> None:
            if not service.streams:
                self.send_response(204)
                self.end_headers()
                return
            chunks = service.streams.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for chunk in chunks:
                if chunk == b"hang":
                    service.wait_for_stop.wait(30)
                    return
                if isinstance(chunk, float):
                    service.wait_for_stop.wait(chunk)
                    continue
                try:
                    self.wfile.write(chunk)
                    self.wfile.flush()
                except ConnectionError:
                    return

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    return Handler


@contextmanager
def running(service: FakeService) -> Iterator[str]:
    """Serve on a free port of this machine; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        service.wait_for_stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
