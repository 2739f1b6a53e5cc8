"""The HTTP side: whether the service lives, is ready, and how it is."""

from __future__ import annotations

import os
from typing import Final

import orjson
from aiohttp import web

from booking_worker.api.health import Grade, Health
from booking_worker.api.listening import bind, every_host, port_taken

_OK: Final = 200
_UNAVAILABLE: Final = 503
_LINGER_SECONDS: Final = 5.0


class HttpServer:
    """Serves HTTP_PORT; ``port`` 0 takes any that is free, ``shared`` one that is reserved.

    ``/livez`` answers as long as the event loop turns: whoever restarts the service on failure
    should ask this one. ``/readyz`` says whether calls should be sent here. ``/healthz`` has
    all findings.
    """

    def __init__(
        self, health: Health, port: int, host: str | None = None, *, shared: bool = False
    ) -> None:
        self._health = health
        self._wanted_port = port
        self._shared = shared
        self._host = every_host() if host is None else host
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    async def start(self) -> None:
        """Listen.

        Raises:
            InvalidSettings: the port is taken.
        """
        try:
            listening = bind(self._host, self._wanted_port, shared=self._shared)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else ""
            raise port_taken("HTTP_PORT", self._wanted_port, why) from error
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LINGER_SECONDS)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()
        self._port = listening.getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end the connections. May be called again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return _json(_OK, {"status": "alive"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        why_not = await self._health.why_not_ready()
        if why_not:
            return _json(_UNAVAILABLE, {"status": "not ready", "message": why_not})
        return _json(_OK, {"status": "ready"})

    async def _healthz(self, _request: web.Request) -> web.Response:
        report = await self._health.report()
        return _json(
            _UNAVAILABLE if report.status is Grade.UNHEALTHY else _OK,
            {"status": report.status, "message": report.message, "details": report.details},
        )


def _json(status: int, body: dict[str, object]) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
