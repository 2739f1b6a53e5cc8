"""One of the processes, as it sees itself: the service, with a supervisor at its standard input."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any, Final

import structlog

from booking_worker import app
from booking_worker.api.health import Finding, Grade
from booking_worker.config import load
from booking_worker.domain.errors import BookingWorkerError
from booking_worker.engine.borrowed import BorrowedEngine
from booking_worker.supervisor.child import pack, unpacker
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.merging import page_of

TELL_SECONDS: Final = 2.0
_READ_BYTES: Final = 65536

_log = get_logger(__name__)


class Link:
    """The socket to the supervisor; see :mod:`booking_worker.supervisor.child`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._messages = unpacker()

    def hear(self) -> dict[str, Any] | None:
        """The next message, waited for; None when the supervisor is gone."""
        while True:
            for message in self._messages:
                heard: dict[str, Any] = message
                return heard
            try:
                data = self._connection.recv(_READ_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            self._messages.feed(data)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message; when the supervisor is gone, whoever hears ends the process."""
        try:
            self._connection.sendall(pack(message))
        except ConnectionError as error:
            _log.debug("the supervisor cannot be told", error=str(error))


class Member:
    """Tells the supervisor how this process is, and hears from it how all are."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._news: dict[str, Any] = {"ready": 0, "of": 0, "troubles": ["they start"]}
        self._application: app.Application | None = None
        self._telling: asyncio.Task[None] | None = None

    async def check(self) -> Finding:
        """Whether all processes are ready for calls; never unhealthy, as this one answers."""
        news = self._news
        count = f"{news['ready']} of {news['of']} are ready"
        if not news["troubles"]:
            return Finding(Grade.HEALTHY, count)
        return Finding(Grade.DEGRADED, "; ".join([count, *news["troubles"]]))

    def hear_until_alone(self) -> None:
        """Take in the news until the supervisor is gone, then end this process at once.

        Without it nobody owns the engine, and the next supervisor needs the ports. What is in
        hand is redelivered when its lease ends.
        """
        while (news := self._link.hear()) is not None:
            self._news = news
        _log.error("the supervisor is gone: so is this process")
        os._exit(1)

    def tell(self, application: app.Application) -> None:
        """Say that this process is ready, and go on to say how it is."""
        self._application = application
        self._link.tell({"ready": True})
        self._telling = asyncio.create_task(self._tell_for_ever(application))

    async def _tell_for_ever(self, application: app.Application) -> None:
        while True:
            not_ready = await application.health.why_not_ready()
            # Not on the loop: a page of a thousand events takes 20 ms.
            await asyncio.to_thread(self._tell_once, application, not_ready)
            await asyncio.sleep(TELL_SECONDS)

    def tell_last(self) -> None:
        """Say what was counted until the end."""
        if self._application is not None:
            self._tell_once(self._application, "ended")

    def _tell_once(self, application: app.Application, not_ready: str) -> None:
        page = page_of(application.metrics.registry)
        self._link.tell({"page": page, "not_ready": not_ready})


def run() -> int:
    """Serve until the supervisor asks to stop or is gone; the exit code.

    Raises:
        BookingWorkerError: there is no supervisor.
        InvalidSettings, EngineFailed: it can't start.
    """
    try:
        link = Link(socket.socket(fileno=os.dup(0)))
    except OSError:
        error = "--child is for `booking-worker serve --processes` to say"
        raise BookingWorkerError(error) from None
    hello = link.hear()
    if hello is None:
        return 1  # the supervisor is gone already
    settings = load(overrides=hello["settings"])
    structlog.contextvars.bind_contextvars(process=hello["number"])
    member = Member(link)
    threading.Thread(target=member.hear_until_alone, name="supervisor", daemon=True).start()
    engine = BorrowedEngine(settings.data_dir, settings.engine_fsync)
    shared = app.Shared(engine if settings.engine == "embedded" else None, member.check)
    code = app.run(settings, shared=shared, on_ready=member.tell)
    member.tell_last()
    return code
