"""The API on a real queue, called over real sockets; the work is done by the test's own hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rpc_status
from redis.asyncio import Redis

from booking_worker.api.admin_service import AdminService
from booking_worker.api.administration import Administration
from booking_worker.api.grpc_server import GrpcServer, Tls, Transport
from booking_worker.api.health import Health, engine_check
from booking_worker.api.operations import Operations
from booking_worker.api.queue_service import QueueService
from booking_worker.domain.model import Held, Lease, Status, Task
from booking_worker.intake.direct import DirectIntake
from booking_worker.proto import admin_pb2_grpc, booking_worker_pb2, booking_worker_pb2_grpc
from booking_worker.queue.booking_queue import BookingQueue, QueueLimits
from booking_worker.telemetry.metrics import Metrics
from tests.support.engines import FIRST_ENGINE

on_one_engine = pytest.mark.parametrize(
    "engine", FIRST_ENGINE, indirect=True, ids=lambda made: made.name
)
"""What the API says does not hang on the engine's make: the first one will do."""

CERTIFICATES = Path(__file__).parent / "certificates"

TRANSPORTS: tuple[Transport, ...] = ("native", "grpcio")

LIMITS = QueueLimits(
    max_size=100,
    places_per_user=1,
    queue_timeout_ms=600_000,
    payment_timeout_ms=600_000,
    payment_grace_ms=60_000,
    result_ttl_ms=600_000,
    lease_ms=30_000,
    max_retries=0,
)

EVENT = "concert"


@dataclass
class Api:
    """A running API, and a client of it."""

    queue: BookingQueue
    operations: Operations
    health: Health
    metrics: Metrics
    server: GrpcServer
    channel: grpc.aio.Channel
    records: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stub = booking_worker_pb2_grpc.BookingWorkerServiceStub(self.channel)
        self.admin = admin_pb2_grpc.BookingWorkerAdminStub(self.channel)

    @property
    def target(self) -> str:
        """Where another client finds it."""
        return f"127.0.0.1:{self.server.port}"

    async def join(self, user_id: str = "ann", event_id: str = EVENT, **fields: Any) -> str:
        """Join with one seat unless told otherwise; the item's id."""
        response = await self.stub.EnqueueBooking(asked(user_id, event_id, **fields))
        assert response.success
        item_id: str = response.queue_item_id
        return item_id

    async def position(
        self, item_id: str, user_id: str = "ann"
    ) -> booking_worker_pb2.GetQueuePositionResponse:
        """Where the item stands, by the API."""
        return await self.stub.GetQueuePosition(
            booking_worker_pb2.GetQueuePositionRequest(queue_item_id=item_id, user_id=user_id)
        )

    async def claim(self, task: Task = Task.RESERVE, event_id: str = EVENT) -> Lease:
        """The next task of this kind, as a worker would claim it; capacity is unlimited."""
        question = await self.queue.ask_capacity(event_id)
        await self.queue.set_capacity(event_id, question, None)
        (lease,) = (await self.queue.claim(event_id, "w", 1, frozenset({task}))).leases
        return lease

    async def bring_to(self, status: Status, user_id: str = "ann", hold_ms: int = 600_000) -> str:
        """A fresh item of this user, alone in the line of a fresh event, in this status."""
        event_id = f"{status}-{user_id}"
        item_id = await self.join(user_id, event_id)
        queue = self.queue
        if status is Status.WAITING:
            return item_id
        if status is Status.SOLD_OUT:
            question = await queue.ask_capacity(event_id)
            await queue.set_capacity(event_id, question, 0)
            assert await queue.sell_out(event_id) == 0
            return item_id
        lease = await self.claim(event_id=event_id)
        if status is Status.PROCESSING:
            return item_id
        if status is Status.REJECTED:
            await queue.settle_rejected(lease, "these seats are taken")
            return item_id
        if status is Status.FAILED:
            assert await queue.settle_retry(lease, 0, "down") is Status.FAILED
            return item_id
        await queue.settle_held(lease, Held("booking-1", "REF1", hold_ms))
        await self._go_on_from_held(item_id, status, user_id, event_id)
        return item_id

    async def _go_on_from_held(
        self, item_id: str, status: Status, user_id: str, event_id: str
    ) -> None:
        queue = self.queue
        if status in {Status.CONFIRMING, Status.COMPLETED, Status.EXPIRED}:
            await queue.ask_confirm(item_id, user_id, "payment-1")
        if status is Status.COMPLETED:
            await queue.settle_confirmed(await self.claim(Task.CONFIRM, event_id), "REF1")
        if status is Status.EXPIRED:
            await queue.settle_gone(await self.claim(Task.CONFIRM, event_id), "it ran out")
        if status in {Status.CANCELLED, Status.RELEASING}:
            await queue.cancel(item_id, user_id, "changed my mind", f"user:{user_id}")
        if status is Status.CANCELLED:
            await queue.settle_released(await self.claim(Task.RELEASE, event_id))


def asked(
    user_id: str = "ann", event_id: str = EVENT, **fields: Any
) -> booking_worker_pb2.EnqueueBookingRequest:
    """A request for one seat, unless the fields say otherwise."""
    if "seat_numbers" not in fields:
        fields.setdefault("seat_count", 1)
    return booking_worker_pb2.EnqueueBookingRequest(user_id=user_id, event_id=event_id, **fields)


@asynccontextmanager
async def running_api(
    redis_client: Redis,
    transport: Transport,
    limits: QueueLimits = LIMITS,
    tls: Tls | None = None,
) -> AsyncIterator[Api]:
    """An API on this engine, ready, with a client on a connection of its own."""
    queue = BookingQueue(redis_client, limits)
    metrics = Metrics()
    intake = DirectIntake(queue, metrics)
    records: list[Mapping[str, Any]] = []
    operations = Operations(
        queue, intake, metrics, max_seats=4, live_slots=lambda: 7, record=records.append
    )
    health = Health({"engine": engine_check(queue.events)})
    services = [
        QueueService(operations, health, metrics).service(),
        AdminService(Administration(queue, records.append), metrics).service(),
    ]
    server = GrpcServer(
        services,
        health,
        metrics,
        0,
        host="127.0.0.1",
        transport=transport,
        tls=tls,
        grace_seconds=20,
    )
    await server.start()
    health.serve()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Api(queue, operations, health, metrics, server, channel, records)
    finally:
        await server.stop()
        await intake.stop()
        await operations.drain()


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    msg = f"the call succeeded: {answer!r}"
    raise AssertionError(msg)


def detail(error: grpc.aio.AioRpcError, kind: type[Message]) -> Any:
    """The google.rpc detail of this kind that an error carries."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = rpc_status.status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
            assert status.message == error.details()
            for packed in status.details:
                if packed.Is(kind.DESCRIPTOR):
                    found = kind()
                    packed.Unpack(found)
                    return found
    msg = f"no {kind.DESCRIPTOR.full_name} in {error!r}"
    raise AssertionError(msg)


def field_at_fault(error: grpc.aio.AioRpcError) -> str:
    """The one field that an INVALID_ARGUMENT names."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.description
    name: str = violation.field
    return name
