"""Several processes of the service on one machine, on the same ports, as if they were one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

import uvloop
from prometheus_client import CollectorRegistry

from booking_worker.api.listening import reserve
from booking_worker.config import Settings
from booking_worker.config.engines import engine_of
from booking_worker.domain.errors import InvalidSettings
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.lifecycle import Part, run_until_told
from booking_worker.supervisor.child import hello
from booking_worker.supervisor.crew import Crew, NotStarted
from booking_worker.telemetry.logs import configure, get_logger
from booking_worker.telemetry.metrics import MetricsServer

_STOP_SECONDS: Final = 20.0
"""What a process may need to stop besides SHUTDOWN_GRACE_SECONDS."""

log = get_logger(__name__)


def shares(slots: int, processes: int) -> list[int]:
    """The worker slots of each process, which differ by one at most.

    Raises:
        InvalidSettings: there is not one for each.
    """
    if slots < processes:
        problem = (
            f"WORKER_POOL_SIZE: got {slots}, takes at least {processes}"
            f" with --processes {processes}, as they share the workers"
        )
        raise InvalidSettings([problem])
    each, more = divmod(slots, processes)
    return [each + (number < more) for number in range(processes)]


class Supervisor:
    """Owns what there is one of: the ports, the engine, the sandbox, the page of metrics.

    The processes do the rest; their workers are WORKER_POOL_SIZE together. ``start`` raises
    InvalidSettings, EngineInUse, EngineFailed or NotStarted when it can't be; what had started
    by then is stopped again.
    """

    def __init__(self, settings: Settings, processes: int, sandbox: Part | None = None) -> None:
        self.settings = settings
        self._slots = shares(settings.worker_pool_size, processes)
        self._sandbox = sandbox
        self._engine = (
            EmbeddedEngine(settings.data_dir, settings.engine_fsync)
            if settings.engine == "embedded"
            else None
        )
        self._ports: list[socket.socket] = []
        self._crew: Crew | None = None
        self._metrics_server: MetricsServer | None = None
        self._started: list[Part] = []

    @property
    def grpc_port(self) -> int:
        """Where BookingWorkerService is served."""
        return _number(self._ports[0])

    @property
    def http_port(self) -> int:
        """Where the health checks are served."""
        return _number(self._ports[1])

    @property
    def metrics_port(self) -> int | None:
        """Where /metrics is served; None when METRICS_ENABLED is false."""
        return self._metrics_server.port if self._metrics_server else None

    @property
    def engine_description(self) -> str:
        """What engine runs, and how durable it is."""
        return (self._engine or engine_of(self.settings)).description

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that serve."""
        return self._crew.pids if self._crew else []

    @property
    def clean(self) -> bool:
        """Whether no process had to be killed at the stop."""
        return self._crew is None or self._crew.clean

    async def start(self) -> None:
        """Start all; when it returns, every process is ready."""
        settings = self.settings
        try:
            self._ports.append(reserve("GRPC_PORT", settings.grpc_port))
            self._ports.append(reserve("HTTP_PORT", settings.http_port))
            crew = self._crew = self._make_crew()
            if settings.metrics_enabled:
                registry = CollectorRegistry()
                registry.register(crew.metrics)
                self._metrics_server = MetricsServer(registry, settings.metrics_port)
            for part in (self._engine, self._sandbox, self._metrics_server, crew):
                if part is not None:
                    self._started.append(part)
                    await part.start()
        except BaseException:
            await self.stop()
            raise

    def _make_crew(self) -> Crew:
        hellos = [
            hello(
                number,
                self.settings,
                grpc_port=self.grpc_port,
                http_port=self.http_port,
                metrics_enabled=False,
                worker_pool_size=slots,
            )
            for number, slots in enumerate(self._slots, 1)
        ]
        return Crew(hellos, self.settings.shutdown_grace_seconds + _STOP_SECONDS)

    def kill(self) -> None:
        """End every process at once, in one that ends now; an engine of its own saves and ends."""
        if self._crew is not None:
            self._crew.kill()
        if self._engine is not None:
            self._engine.abandon()

    async def stop(self) -> None:
        """Stop all: the processes finish or hand back what is in hand before the engine ends."""
        while self._started:
            part = self._started.pop()
            try:
                await part.stop()
            except Exception:
                # One part that cannot end must not keep the others from ending.
                log.exception("a part did not stop cleanly", part=type(part).__name__)
        while self._ports:
            self._ports.pop().close()


def _number(port: socket.socket) -> int:
    number: int = port.getsockname()[1]
    return number


def run(
    settings: Settings,
    processes: int,
    *,
    sandbox: Part | None = None,
    on_ready: Callable[[Supervisor], None] = lambda _: None,
) -> int:
    """Run so many processes until SIGTERM or SIGINT; the exit code.

    That is 0, 1 when one of them had to be killed, or the code of one that could not start. A
    second signal kills all and ends this process at once.

    Raises:
        InvalidSettings, EngineInUse, EngineFailed: it can't start.
    """
    configure(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(Supervisor(settings, processes, sandbox), on_ready))


async def _serve(supervisor: Supervisor, on_ready: Callable[[Supervisor], None]) -> int:
    def ready() -> None:
        log.info(
            "ready",
            grpc_port=supervisor.grpc_port,
            http_port=supervisor.http_port,
            pids=supervisor.pids,
        )
        on_ready(supervisor)

    def at_once(number: int) -> None:
        supervisor.kill()
        os._exit(128 + number)

    try:
        await run_until_told(supervisor, on_ready=ready, at_once=at_once)
    except NotStarted as error:
        log.error("not started", why=str(error))  # noqa: TRY400 - the process has said the rest
        return max(error.code, 1)
    return 0 if supervisor.clean else 1
