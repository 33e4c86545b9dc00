"""A proxy between two programs of a test that can be made to misbehave as networks do.

It forwards bytes of any protocol from a TCP port (or a unix socket) to a TCP or unix address, in a thread of
its own. Faults are switched on and off from the test; connections that exist feel them as well as new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

_CHUNK_BYTES = 1 << 16
_NO_LINGER = struct.pack("ii", 1, 0)
_T = TypeVar("_T")

Address = Path | tuple[str, int]


class _Link:
    """One connection through the proxy: the client's side and the server's."""

    def __init__(self, client: asyncio.StreamWriter, budget: int | None, *, of_server: bool) -> None:
        self.of_server = of_server
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.budget = budget
        self.is_mute = False

    def reset(self) -> None:
        """Cut both sides at once, on TCP with a reset."""
        for side in (self.client, self.server):
            if side is None:
                continue
            sock = side.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            side.transport.abort()

    def lose_server(self) -> None:
        """Close the server's side and leave the client's open, which is told nothing any more."""
        self.is_mute = True
        if self.server is not None:
            self.server.transport.abort()


class FaultProxy:
    """Forwards connections to `upstream`; listens on a free TCP port, or on the unix socket `listen`.

    Faults: `latency(s)` delays each piece, `reset()` cuts what is connected, `refuse()` cuts new ones as
    well, `half_open()` loses the server's side of what is connected without telling the client, `blackhole()`
    lets nothing through in either direction, `limit(n)` cuts each new connection after n bytes of one side.
    `heal()` ends all of them; what a blackhole held back then arrives late.
    """

    def __init__(self, upstream: Address, *, listen: Path | None = None) -> None:
        self._upstream = upstream
        self._listen = listen
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._latency_s = 0.0
        self._refuses = False
        self._limit: int | None = None
        self._limits_server = False
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self.num_connections = 0
        self.num_cut = 0
        self.num_bytes = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # ---- addresses

    @property
    def redis_url(self) -> str:
        """URL for Redis clients."""
        return f"unix://{self._listen}" if self._listen is not None else f"redis://127.0.0.1:{self.port}/0"

    @property
    def http_url(self) -> str:
        """URL for HTTP clients."""
        return f"http://127.0.0.1:{self.port}"

    def sql_url(self, user: str, database: str) -> str:
        """URL for PostgreSQL clients."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    # ---- faults

    def latency(self, seconds: float) -> None:
        """Delay each piece of data, in both directions."""
        self._latency_s = seconds

    def reset(self) -> int:
        """Cut all connections; return how many there were."""
        return self._call(self._reset_all)

    def refuse(self) -> None:
        """Cut all connections, and each new one at once."""
        self._refuses = True
        self.reset()

    def half_open(self) -> int:
        """Let all connections lose their server silently; return how many there were. New ones work."""
        return self._call(self._half_open_all)

    def blackhole(self) -> None:
        """Let nothing through any more; nothing is closed, new connections are accepted."""
        self._call(self._flowing.clear)

    def limit(self, num_bytes: int, *, of_server: bool = False) -> None:
        """Cut each new connection after so many bytes from the client, or from the server."""
        self._limit, self._limits_server = num_bytes, of_server

    def heal(self) -> None:
        """End all faults; connections that lost their server stay mute."""
        self._latency_s, self._refuses, self._limit = 0.0, False, None
        self._call(self._flowing.set)

    # ---- inside

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, fn: Callable[[], _T]) -> _T:
        async def run() -> _T:
            return fn()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _open(self) -> None:
        if self._listen is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(self._listen))
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._reset_all()
        mine = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            self._cut(link)
        return len(links)

    def _half_open_all(self) -> int:
        links = [link for link in self._links if not link.is_mute]
        for link in links:
            link.lose_server()
        return len(links)

    def _cut(self, link: _Link) -> None:
        self.num_cut += 1
        link.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        link = _Link(writer, self._limit, of_server=self._limits_server)
        if self._refuses:
            self._cut(link)
            return
        self._links.add(link)
        try:
            from_server, link.server = await self._connect()
            there = asyncio.ensure_future(self._pump(reader, link, to_server=True))
            back = asyncio.ensure_future(self._pump(from_server, link, to_server=False))
            await asyncio.gather(there, back)
        except (OSError, asyncio.CancelledError):
            link.reset()
        finally:
            self._links.discard(link)
            for side in (link.client, link.server):
                if side is not None:
                    side.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, Path):
            return await asyncio.open_unix_connection(str(self._upstream))
        return await asyncio.open_connection(*self._upstream)

    async def _pump(self, reader: asyncio.StreamReader, link: _Link, *, to_server: bool) -> None:
        """Move data until its source ends; then tell the other side, unless the client is to know nothing."""
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if self._latency_s:
                    await asyncio.sleep(self._latency_s)
                await self._flowing.wait()
                counts = link.budget is not None and link.of_server != to_server
                if counts:
                    assert link.budget is not None
                    data, link.budget = data[: link.budget], max(0, link.budget - len(data))
                await self._send(data, link, to_server=to_server)
                if counts and link.budget == 0:
                    self._cut(link)
                    return
            await self._flowing.wait()
        target = link.server if to_server else link.client
        if target is not None and not link.is_mute:
            with contextlib.suppress(OSError):
                target.write_eof() if target.can_write_eof() else target.close()

    async def _send(self, data: bytes, link: _Link, *, to_server: bool) -> None:
        target = link.server if to_server else link.client
        if target is None or link.is_mute:
            return
        self.num_bytes += len(data)
        target.write(data)
        await target.drain()
