"""What a replica's process does; it is forked from one that has imported all of this already."""

from __future__ import annotations

import functools
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from typing_extensions import override

from booking_worker import app
from booking_worker.config import Settings, engines, queues
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.peers import services
from booking_worker.peers.breaker import Breaker
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import MOVED_BY_TESTS
from tests.support.guards import scripts_without, switch_off


class BorrowedEngine(EmbeddedEngine):
    """The engine of a directory that somebody else has started, and will stop."""

    @override
    async def start(self) -> None:
        """It runs."""

    @override
    async def stop(self) -> None:
        """It is needed by others."""


def serve(
    ready: Connection,
    settings: dict[str, Any],
    without: tuple[str, ...],
    log: Path,
    *,
    moves_clock: bool,
) -> None:
    """Run the service on a borrowed engine, with these guards switched off, until SIGTERM.

    A breaker that opened lets a trial through after 0.1 s, and a lease may be shorter than it may
    be elsewhere, so that nobody waits for them long.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    scripts = scripts_without(*without) | (MOVED_BY_TESTS if moves_clock else {})
    # Read where they are used, so replaced there.
    engines.EmbeddedEngine = BorrowedEngine  # type: ignore[misc]
    queues.BookingQueue = functools.partial(BookingQueue, script_overrides=scripts)  # type: ignore[assignment, misc]
    brisk = functools.partial(Breaker, open_seconds=0.1, max_open_seconds=0.4)
    services.Breaker = brisk  # type: ignore[attr-defined]
    Settings._lease_problems = lambda self: []  # type: ignore[method-assign]
    switch_off(without, setattr)

    def on_ready(application: app.Application) -> None:
        ready.send((application.grpc_port, application.http_port, application.metrics_port))

    sys.exit(app.run(Settings(_env_file=None, **settings), on_ready=on_ready))
