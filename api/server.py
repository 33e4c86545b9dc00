"""Run the API with uvicorn, so that it stops at once although event streams are open.

`python -m api.server` takes its settings from the environment. uvicorn waits for open responses before it
tells the application to stop; event streams never end by themselves, so they are closed first.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn

from api.app import create_app
from api.domain.settings import Settings, settings_or_exit

STOP_GRACE_S = 10


class Server(uvicorn.Server):
    """A uvicorn server that calls back before it waits for its connections to end."""

    def __init__(self, config: uvicorn.Config, before_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the streams, then stop as uvicorn does."""
        self._before_shutdown()
        await super().shutdown(sockets)


def make_server(settings: Settings, *, with_loops: bool = True) -> Server:
    """Return a server for these settings; `run()` or `serve()` starts it."""
    app = create_app(settings, with_loops=with_loops)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_GRACE_S,
    )
    return Server(config, before_shutdown=lambda: app.state.services.hub.close_watchers())


def follow_lifeline(stop: Callable[[], None]) -> None:
    """Call `stop` when standard input ends: whoever started this process is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def main() -> None:
    """Serve until SIGTERM, SIGINT or the end of the lifeline; exits with code 2 where a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m api.server", description=__doc__)
    parser.add_argument("--lifeline", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It tells at each question whether the database is migrated how it goes about answering it.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    server = make_server(settings_or_exit("trainshed api"))

    def stop() -> None:
        server.should_exit = True

    if arguments.lifeline:
        follow_lifeline(stop)
    server.run()


if __name__ == "__main__":
    main()
