"""The service: builds its parts, starts them in order, stops them in the opposite one.

The only code that knows everything. What a part needs is given to it here, and only here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvloop

from booking_worker.api.admin_service import AdminService
from booking_worker.api.administration import Administration
from booking_worker.api.grpc_server import GrpcServer, Tls
from booking_worker.api.health import (
    Check,
    Finding,
    Grade,
    Health,
    admission_check,
    capacity_check,
    engine_check,
    feed_check,
    lock_check,
    peer_check,
    worker_check,
)
from booking_worker.api.http_server import HttpServer
from booking_worker.api.operations import Operations
from booking_worker.api.progress import LineWatch
from booking_worker.api.queue_service import QueueService
from booking_worker.config import Settings
from booking_worker.config.engines import access_of, engine_of, needs_of
from booking_worker.config.queues import queue_of
from booking_worker.config.sandboxes import sandbox_of
from booking_worker.domain.model import Change
from booking_worker.engine.durability import Durability, insist, log_durability, read_durability
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.engine import Engine
from booking_worker.engine.redis import server_client
from booking_worker.intake.direct import DirectIntake
from booking_worker.lifecycle import Part, run_until_told
from booking_worker.notify.realtime import RealtimeNotifier
from booking_worker.peers.services import Services
from booking_worker.queue.changes import ChangeFeed
from booking_worker.queue.lock import Redlock
from booking_worker.queue.wake import WakeListener
from booking_worker.telemetry.audit import AuditLog
from booking_worker.telemetry.logs import configure, get_logger
from booking_worker.telemetry.metrics import Metrics, MetricsServer
from booking_worker.worker.admission import Admission
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.gauges import Gauges
from booking_worker.worker.housekeeping import Housekeeping
from booking_worker.worker.pool import WorkerPool
from booking_worker.worker.timeouts import TimeoutHandler

log = get_logger(__name__)


@dataclass(frozen=True)
class Shared:
    """What an application has in common with others on the same ports of this machine."""

    engine: Engine | None
    """One that runs already; None: each reaches that of the settings by itself."""
    processes: Check
    """How all of them are."""


class Application:
    """One replica of the service: start it, use it at its ports, stop it.

    ``start`` raises InvalidSettings, EngineInUse, EngineFailed or LayoutTooNew when it can't be;
    what had started by then is stopped again. With ``sandbox`` it brings stand-ins of the
    services that it calls, at the endpoints of the settings, with their ledger in DATA_DIR.
    """

    def __init__(
        self, settings: Settings, *, sandbox: bool = False, shared: Shared | None = None
    ) -> None:
        self.settings = settings
        self._shared = shared
        self._sandbox = sandbox_of(settings) if sandbox else None
        self._started: list[Part] = []
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._metrics = Metrics()
        self._audit = AuditLog(settings.audit_log, self._metrics.audit_gap.inc)
        self._engine = (shared.engine if shared else None) or engine_of(settings)
        self._durability: Durability | None = None
        self._services = Services(
            settings.grpc_booking_service_endpoint,
            settings.grpc_ticket_service_endpoint,
            settings.grpc_realtime_service_endpoint,
            settings.peer_timeout_seconds,
        )
        self._client = self._engine.client()
        self._follower = self._engine.client()
        access = access_of(settings)
        self._lock_nodes = [server_client(node, access) for node in settings.redis_lock_nodes]
        self._queue = queue_of(settings, self._client)
        self._build_work()
        self._build_doors()

    def _build_work(self) -> None:
        settings, metrics = self.settings, self._metrics
        services, queue = self._services, self._queue
        grace = settings.shutdown_grace_seconds
        self._notifier = (
            RealtimeNotifier(services.realtime, metrics.messages_lost.inc, grace)
            if services.realtime
            else None
        )
        lock = self._lock = Redlock(self._lock_nodes or [self._client])
        house = self._house = Housekeeping(queue, lock)
        self._feed = ChangeFeed(
            self._follower,
            queue,
            house,
            on_changes=self._on_changes,
            on_gap=self._on_gap,
            on_error=self._on_feed_error,
        )
        self._admission = Admission(
            queue, metrics, self._audit.record, on_resumed=lambda: self._on_wake("")
        )
        self._capacity = CapacityKeeper(
            queue, house, services.ticket, metrics, settings.capacity_refresh_seconds
        )
        self._timeouts = TimeoutHandler(queue, house, metrics, settings.queue_cleanup_interval)
        self._pool = WorkerPool(
            queue,
            self._capacity,
            services.booking,
            services.ticket,
            metrics,
            worker_id=self.worker_id,
            slots=settings.worker_pool_size,
            lease_seconds=settings.worker_lease_seconds,
            retry_interval_seconds=settings.worker_retry_interval,
            grace_seconds=grace,
        )
        self._wake = WakeListener(
            self._follower, self._on_wake, self._capacity.wanted_elsewhere, house.freed
        )
        self._gauges = Gauges(queue, metrics, services.breakers, lambda: self._pool.writes_refused)

    def _build_doors(self) -> None:
        settings, queue, metrics = self.settings, self._queue, self._metrics
        self._intake = DirectIntake(queue, metrics)
        patience = settings.worker_lease_seconds + settings.queue_cleanup_interval
        self._lines = LineWatch(queue, patience)
        self._operations = Operations(
            queue,
            self._intake,
            metrics,
            max_seats=settings.queue_max_seats,
            live_slots=lambda: self._pool.live_slots,
            record=self._audit.record,
        )
        self._health = Health(self._checks(patience))
        tls = None
        if settings.grpc_tls_cert and settings.grpc_tls_key:
            tls = Tls(settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_client_ca)
        self._grpc = GrpcServer(
            [
                QueueService(self._operations, self._health, metrics).service(),
                AdminService(Administration(queue, self._audit.record), metrics).service(),
            ],
            self._health,
            metrics,
            settings.grpc_port,
            shared=self._shared is not None,
            transport=settings.grpc_transport,
            tls=tls,
        )
        self._http = HttpServer(self._health, settings.http_port, shared=self._shared is not None)
        self._metrics_server = (
            MetricsServer(metrics.registry, settings.metrics_port)
            if settings.metrics_enabled
            else None
        )

    def _checks(self, patience: float) -> dict[str, Check]:
        breakers, services = self._services.breakers, self._services
        return {
            "engine": engine_check(
                lambda: self._queue.status(""), lambda: self._pool.writes_refused
            ),
            "durability": self._check_durability,
            "admission": admission_check(lambda: self._admission.paused, self._lines.paused),
            "worker": worker_check(
                self._lines,
                self._pool.seconds_since_claim,
                patience,
                lambda: self._pool.waits_for,
            ),
            "booking": peer_check(services.booking.health, lambda: breakers["booking"].state),
            "ticket": peer_check(
                services.ticket.health if services.ticket else None,
                lambda: breakers["ticket"].state,
            ),
            "realtime": self._check_realtime,
            "capacity": capacity_check(lambda: self._capacity.trouble),
            "feed": feed_check(lambda: self._feed.trouble),
            **({"lock_nodes": self._check_lock_nodes()} if self._lock_nodes else {}),
            **({"processes": self._shared.processes} if self._shared else {}),
        }

    def _check_lock_nodes(self) -> Check:
        nodes = [f"{host}:{port}" for host, port in self.settings.redis_lock_nodes]
        return lock_check(self._lock.silent, nodes)

    async def _check_durability(self) -> Finding:
        durability = await read_durability(self._client, needs_of(self.settings))
        if durability.sound:
            return Finding(Grade.HEALTHY, f"{durability.version}: {durability.loss_window}")
        return Finding(Grade.DEGRADED, "; ".join(durability.warnings))

    async def _check_realtime(self) -> Finding:
        # It has no call to ask how it is: what the last calls came to has to say it.
        if self._services.realtime is None:
            return Finding(Grade.HEALTHY, "not configured")
        state = self._services.breakers["realtime"].state
        if state != "closed":
            return Finding(Grade.DEGRADED, f"failed too often lately; its breaker is {state}")
        return Finding(Grade.HEALTHY, "")

    async def _on_changes(self, changes: Sequence[Change]) -> None:
        await self._audit.write(changes)
        if self._notifier is not None:
            self._notifier.tell(changes)

    def _on_gap(self, event_id: str) -> None:
        self._metrics.audit_gap.inc()
        log.error("changes were cut off before they were written", event_id=event_id)

    def _on_feed_error(self, error: Exception) -> None:
        self._metrics.errors.labels("feed").inc()
        log.warning("the feed of changes stalls", error=repr(error))

    def _on_wake(self, event_id: str) -> None:
        self._house.wake(event_id)
        self._pool.wake(event_id)
        self._timeouts.wake(event_id)
        self._gauges.wake(event_id)

    @property
    def metrics(self) -> Metrics:
        """What it counts."""
        return self._metrics

    @property
    def health(self) -> Health:
        """How it is."""
        return self._health

    @property
    def grpc_port(self) -> int:
        """Where BookingWorkerService is served."""
        return self._grpc.port

    @property
    def http_port(self) -> int:
        """Where the health checks are served."""
        return self._http.port

    @property
    def metrics_port(self) -> int | None:
        """Where /metrics is served; None when METRICS_ENABLED is false."""
        return self._metrics_server.port if self._metrics_server else None

    @property
    def engine_description(self) -> str:
        """What engine runs, and, once started, how durable it is."""
        if self._durability is None:
            return self._engine.description
        return f"{self._engine.description}; loss at a crash: {self._durability.loss_window}"

    async def start(self) -> None:
        """Start every part; when it returns, the service is ready."""
        try:
            await self._start(self._audit, self._engine, self._sandbox)
            await self._weigh_engine()
            await self._start(self._admission)
            # Those behind come first: nothing is taken at the door that nobody works on.
            await self._start(self._services, self._notifier, self._house, self._feed)
            await self._start(self._capacity, self._pool, self._timeouts, self._wake)
            await self._start(self._gauges, self._lines, self._metrics_server, self._http)
            await self._start(self._intake, self._grpc)
        except BaseException:
            await self.stop()
            raise
        self._health.serve()
        # What stands now stands until the end: the collector need not look at it again. And a
        # busy service has thousands of calls under way, which are no garbage either.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        log.info("ready", grpc_port=self.grpc_port, http_port=self.http_port)

    async def _weigh_engine(self) -> None:
        self._durability = await read_durability(self._client, needs_of(self.settings))
        log_durability(self._durability)
        if self.settings.engine == "redis" and self.settings.redis_strict:
            insist(self._durability)

    async def _start(self, *parts: Part | None) -> None:
        for part in parts:
            if part is not None:
                self._started.append(part)
                await part.start()

    async def stop(self) -> None:
        """Take no more work, finish or hand back what is in hand, write what is left, end."""
        self._health.shut_down()
        if self._notifier is not None:
            self._notifier.expect_stop()
        # No new claims from here on; calls that wait for an answer still get it.
        if self._pool in self._started:
            self._started.append(self._started.pop(self._started.index(self._pool)))
        while self._started:
            part = self._started.pop()
            try:
                await part.stop()
            except Exception:
                # One part that cannot end must not keep the others from ending.
                log.exception("a part did not stop cleanly", part=type(part).__name__)
        await self._operations.drain()
        for client in (self._client, self._follower, *self._lock_nodes):
            await client.aclose()

    def abandon(self) -> None:
        """Leave all as it is, in a process that ends now; an engine of its own saves and ends."""
        if isinstance(self._engine, EmbeddedEngine):
            self._engine.abandon()


def run(
    settings: Settings,
    *,
    sandbox: bool = False,
    shared: Shared | None = None,
    on_ready: Callable[[Application], None] = lambda _: None,
) -> int:
    """Run the service until SIGTERM or SIGINT; the process's exit code, 0.

    A second signal ends the process at once: the leases it holds then end by themselves. One
    of several leaves that to who started it, as its group and its supervisor may both signal.

    Raises:
        InvalidSettings, EngineInUse, EngineFailed, LayoutTooNew: it can't start.
    """
    configure(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, on_ready, sandbox=sandbox, shared=shared))
    return 0


async def _serve(
    settings: Settings,
    on_ready: Callable[[Application], None],
    *,
    sandbox: bool,
    shared: Shared | None,
) -> None:
    application = Application(settings, sandbox=sandbox, shared=shared)

    def at_once(number: int) -> None:
        if shared is None:
            application.abandon()
            os._exit(128 + number)

    await run_until_told(application, on_ready=lambda: on_ready(application), at_once=at_once)
