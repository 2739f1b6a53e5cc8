"""The worker room on a stage: its parts with their peers, driven by hand or let run."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

from booking_worker.domain.model import Lease, Status
from booking_worker.peers.booking import BookingClient
from booking_worker.peers.breaker import Breaker
from booking_worker.peers.channel import open_channel
from booking_worker.peers.ticket import TicketClient
from booking_worker.proto import booking_pb2, ticket_pb2
from booking_worker.queue.wake import WakeListener
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.assignment import Assignment
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.confirm import Confirm
from booking_worker.worker.pool import WorkerPool
from booking_worker.worker.recall import Recall
from booking_worker.worker.release import Release
from booking_worker.worker.reserve import Reserve
from booking_worker.worker.setbacks import Setbacks
from booking_worker.worker.timeouts import TimeoutHandler
from tests.support.engines import SharedEngine
from tests.support.house import Alone
from tests.support.stage import EVENT, Stage
from tests.unit.peers.scripted import Script

LEASE_SECONDS = 30.0
PEER_SECONDS = 2.0
SHORTLY_OPEN = 0.05


class Crew:
    """Everything that works on a queue; no ``ticket_endpoint``, no Ticket Service."""

    def __init__(
        self,
        stage: Stage,
        booking_endpoint: str,
        ticket_endpoint: str = "",
        script: Script | None = None,
        refresh_seconds: float = 5.0,
    ) -> None:
        self.stage = stage
        self.queue = stage.queue
        self.script = script or Script()
        self.metrics = Metrics()
        self.channels = [open_channel(booking_endpoint)]
        # No jitter: a test knows when the trial may go.
        self.booking = BookingClient(
            self.channels[0],
            Breaker("booking", open_seconds=SHORTLY_OPEN, max_open_seconds=0.1, rand=lambda: 0.0),
            PEER_SECONDS,
        )
        self.ticket: TicketClient | None = None
        if ticket_endpoint:
            self.channels.append(open_channel(ticket_endpoint))
            breaker = Breaker(
                "ticket", open_seconds=SHORTLY_OPEN, max_open_seconds=0.1, rand=lambda: 0.0
            )
            self.ticket = TicketClient(self.channels[1], breaker, PEER_SECONDS)
        self.house = Alone(self.queue)
        self.keeper = CapacityKeeper(
            self.queue, self.house, self.ticket, self.metrics, refresh_seconds
        )
        self.setbacks = Setbacks(self.queue, 1.0, rand=lambda: 1.0)
        self.recall = Recall(self.queue)
        self.reserve = Reserve(self.queue, self.booking, self.keeper, self.setbacks, self.recall)
        self.confirm = Confirm(self.queue, self.booking, self.setbacks)
        self.release = Release(self.queue, self.booking, self.ticket, self.keeper, self.setbacks)
        self.timeouts = TimeoutHandler(self.queue, self.house, self.metrics, 30.0)
        self.pools: list[WorkerPool] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in self.pools:
            await pool.stop()
        await self.timeouts.stop()
        await self.keeper.stop()
        for channel in self.channels:
            await channel.close()

    def pool(self, slots: int = 10, **changes: Any) -> WorkerPool:
        """A pool that is not started."""
        given: dict[str, Any] = {
            "worker_id": f"w{len(self.pools)}",
            "slots": slots,
            "lease_seconds": LEASE_SECONDS,
            "retry_interval_seconds": 0.01,
            "grace_seconds": 5.0,
            **changes,
        }
        made = WorkerPool(self.queue, self.keeper, self.booking, self.ticket, self.metrics, **given)
        self.pools.append(made)
        return made

    def assignment(self, lease: Lease, seconds: float = LEASE_SECONDS) -> Assignment:
        """A lease as a worker has it that claimed it just now."""
        return Assignment(self.queue, lease, seconds, asyncio.get_running_loop().time())

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value; 0 for one that was never touched."""
        return self.metrics.registry.get_sample_value(f"booking_worker_{name}", labels) or 0.0

    async def statuses(self, item_ids: list[str]) -> list[Status]:
        """Where these items stand."""
        places = await self.queue.positions(EVENT, item_ids)
        return [place.status if place else Status.FAILED for place in places]


async def work_off(pool: WorkerPool) -> None:
    """Have a pool that is not started claim and finish all that can be claimed now."""
    idle = 0
    while idle < 2:
        pool.wake("")
        await pool.run_once()
        if pool._running:
            await asyncio.wait(list(pool._running), return_when=asyncio.FIRST_COMPLETED)
        idle = 0 if pool._running or pool._claims._candidates else idle + 1


class HeldUp:
    """Calls that are held up until the test lets them go on."""

    def __init__(self, answer: Any) -> None:
        self.asked: list[Any] = []
        self.go_on = asyncio.Event()
        self._answer = answer

    async def __call__(self, request: Any) -> Any:
        self.asked.append(request)
        await self.go_on.wait()
        return self._answer(request)


class Woken:
    """Listens for wakes as the application does."""

    def __init__(self, engine: SharedEngine, *parts: Any) -> None:
        self._client: Redis = engine.client()
        self.heard: list[str] = []
        self._parts = parts
        self._listener = WakeListener(self._client, self._on_wake, lambda _: None, lambda _: None)

    def _on_wake(self, event_id: str) -> None:
        self.heard.append(event_id)
        for part in self._parts:
            part.wake(event_id)

    async def __aenter__(self) -> Self:
        await self._listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.stop()
        await self._client.aclose()


def booking(booking_id: str = "B1", **fields: Any) -> booking_pb2.BookingResponse:
    """An answer with a booking that is pending, unless told otherwise."""
    values = {"status": "pending", "booking_reference": "REF1", **fields}
    return booking_pb2.BookingResponse(
        success=True, booking=booking_pb2.Booking(id=booking_id, **values)
    )


def made_for(request: booking_pb2.CreateBookingRequest) -> booking_pb2.BookingResponse:
    """The answer to a CreateBooking that went well."""
    return booking(f"B-{request.idempotency_key}")


async def made(request: booking_pb2.CreateBookingRequest) -> booking_pb2.BookingResponse:
    """The same, for a script's answers."""
    return made_for(request)


def confirmed(booking_id: str = "B1") -> booking_pb2.ConfirmBookingResponse:
    """An answer to a confirm that went well."""
    made = booking_pb2.Booking(id=booking_id, status="confirmed", booking_reference="REF1")
    return booking_pb2.ConfirmBookingResponse(success=True, booking=made)


def cancelled() -> booking_pb2.CancelBookingResponse:
    """An answer to a cancel that went well."""
    return booking_pb2.CancelBookingResponse(success=True)


def available(number: int) -> ticket_pb2.CheckAvailabilityResponse:
    """So many tickets are left."""
    return ticket_pb2.CheckAvailabilityResponse(
        success=True, available=number > 0, available_quantity=number
    )


def given_back() -> ticket_pb2.ReleaseTicketsResponse:
    """The tickets were taken back."""
    return ticket_pb2.ReleaseTicketsResponse(success=True)
