"""A sale to be harmed: replicas in processes, stand-in peers, one engine, and a judge at the end."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from booking_worker.domain.model import FINAL, Place, Status
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.redis import RedisEngine
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.queue.booking_queue import BookingQueue, QueueLimits
from booking_worker.sandbox import journal, promises
from booking_worker.sandbox.audit import LedgerAudit
from booking_worker.sandbox.ledger import DEFAULT_HOLD_SECONDS
from booking_worker.sandbox.server import Sandbox
from tests.support import queue_audit
from tests.support.clock import MOVED_BY_TESTS, Clock
from tests.support.guards import scripts_without
from tests.support.replica import Replica
from tests.support.wait import wait_until

EVENT: Final = "concert"
LEASE_SECONDS: Final = 2.0
SWEEP_SECONDS: Final = 0.5
LIVE: Final = frozenset(Status) - FINAL

_ASKED_AT_ONCE: Final = 100
_MAY_PASS: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)


class Shop:
    """One sale. What was joined through it is followed to its end, and judged there.

    The sandbox runs in the test's own process: its faults and its ledger are at hand.
    """

    def __init__(
        self,
        engine: EmbeddedEngine | RedisEngine,
        directory: Path,
        tickets: int = 100,
        hold_seconds: float = DEFAULT_HOLD_SECONDS,
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """``settings`` lead the replicas to the engine, where it is nobody's own."""
        self._settings = {name.lower(): value for name, value in (settings or {}).items()}
        self.directory = directory
        self.sandbox = Sandbox(
            directory / "ledger.db", default_tickets=tickets, hold_seconds=hold_seconds
        )
        self.engine = engine
        self.client = engine.client()
        self.clock = Clock(self.client)
        self.queue = BookingQueue(self.client, _LIMITS, MOVED_BY_TESTS)
        """The test's own hand. Its clock is the engine's, or the one that the test moves."""
        self.owners: dict[str, str] = {}
        """Every join that was acknowledged: item id -> user id."""
        self.heard: dict[str, str] = {}
        """What its user was told of a payment: item id -> status."""
        self.replicas: list[Replica] = []
        self._opened = 0

    async def start(self) -> None:
        """Start the stand-ins."""
        await self.sandbox.start()

    async def end(self) -> None:
        """Leave nothing running."""
        for replica in self.replicas:
            await replica.kill()
        await self.sandbox.stop()
        await self.client.aclose()

    # --- replicas -----------------------------------------------------------------------------

    async def open(self, *without: str, moves_clock: bool = False, **settings: Any) -> Replica:
        """Start a replica with these guards switched off."""
        self._opened += 1
        name = f"replica-{self._opened}"
        sandbox = self.sandbox
        given = {
            **self._where(),
            "grpc_port": 0,
            "http_port": 0,
            "metrics_port": 0,
            "grpc_booking_service_endpoint": sandbox.booking_endpoint,
            "grpc_ticket_service_endpoint": sandbox.ticket_endpoint,
            "grpc_realtime_service_endpoint": sandbox.realtime_endpoint,
            "audit_log": str(self.directory / f"{name}.audit"),
            "queue_cleanup_interval": SWEEP_SECONDS,
            "capacity_refresh_seconds": 0.5,
            "worker_pool_size": 20,
            "worker_lease_seconds": LEASE_SECONDS,
            "worker_retry_interval": 0.05,
            "shutdown_grace_seconds": 5,
            "peer_timeout_seconds": 1.5,
            "payment_timeout_seconds": 60,
            **self._settings,
            **settings,
        }
        replica = await Replica.start(name, self.directory, given, without, moves_clock=moves_clock)
        self.replicas.append(replica)
        return replica

    def _where(self) -> dict[str, str]:
        engine = self.engine
        return {"data_dir": str(engine.data_dir)} if isinstance(engine, EmbeddedEngine) else {}

    def hand(self, *without: str) -> BookingQueue:
        """Another hand of the test's own, with these guards switched off."""
        return BookingQueue(self.client, _LIMITS, MOVED_BY_TESTS | scripts_without(*without))

    def via(self, replica: Replica | None) -> Any:
        """A stub of this replica, or of any that lives."""
        if replica is not None:
            return replica.stub
        return next(one.stub for one in self.replicas if one.is_alive)

    # --- people -------------------------------------------------------------------------------

    async def join(
        self,
        user_id: str,
        seats: int = 1,
        *,
        key: str = "",
        via: Replica | None = None,
        timeout: float | None = 10,
        **fields: Any,
    ) -> str:
        """The id of this user's place, acknowledged."""
        request = asked(user_id, seats, **fields)
        metadata = (("idempotency-key", key),) if key else None
        answer = await self.via(via).EnqueueBooking(request, metadata=metadata, timeout=timeout)
        return self.took(answer.queue_item_id, user_id)

    def took(self, item_id: str, user_id: str) -> str:
        """Remember a place that was acknowledged."""
        assert item_id
        self.owners[item_id] = user_id
        return item_id

    async def join_many(
        self, number: int, seats: int = 1, *, name: str = "user", via: Replica | None = None
    ) -> list[str]:
        """The ids of new places of as many users, in the order of the line."""
        users = [f"{name}-{at:05}" for at in range(number)]
        ids = []
        for start in range(0, number, 1000):
            requests = [asked(user_id, seats) for user_id in users[start : start + 1000]]
            answer = await self.via(via).EnqueueBookings(
                pb.EnqueueBookingsRequest(requests=requests)
            )
            assert all(one.success for one in answer.responses), answer
            ids += [one.queue_item_id for one in answer.responses]
        for item_id, user_id in zip(ids, users, strict=True):
            self.took(item_id, user_id)
        return ids

    async def pay(
        self, item_id: str, reference: str = "", *, via: Replica | None = None, timeout: float = 10
    ) -> pb.ConfirmPaymentResponse:
        """Say that it has been paid."""
        answer = await self.via(via).ConfirmPayment(
            pb.ConfirmPaymentRequest(
                queue_item_id=item_id,
                user_id=self.owners[item_id],
                payment_reference=reference or f"pay-{item_id}",
            ),
            timeout=timeout,
        )
        if answer.status in FINAL:
            self.heard[item_id] = answer.status
        return answer

    async def cancel(
        self, item_id: str, *, via: Replica | None = None, timeout: float = 10
    ) -> pb.CancelQueueItemResponse:
        """Give the place back."""
        return await self.via(via).CancelQueueItem(
            pb.CancelQueueItemRequest(
                queue_item_id=item_id, user_id=self.owners[item_id], reason="changed my mind"
            ),
            timeout=timeout,
        )

    # --- looking ------------------------------------------------------------------------------

    async def places(self, item_ids: Iterable[str] | None = None) -> dict[str, Place | None]:
        """How these (or all) stand; None for an item that is not known."""
        ids = list(self.owners if item_ids is None else item_ids)
        found: list[Place | None] = []
        for start in range(0, len(ids), 1000):
            found += await self.queue.positions(EVENT, ids[start : start + 1000])
        return dict(zip(ids, found, strict=True))

    async def statuses(self, item_ids: Iterable[str] | None = None) -> list[str]:
        """The status of each, in order; ``unknown`` for an item that is lost."""
        places = await self.places(item_ids)
        return [str(place.status) if place else "unknown" for place in places.values()]

    async def until(
        self,
        statuses: Status | Collection[Status],
        item_ids: Iterable[str] | None = None,
        timeout: float = 15,
    ) -> None:
        """Return once each of these (or of all) has one of these statuses."""
        wanted = {statuses} if isinstance(statuses, Status) else set(statuses)
        ids = list(self.owners if item_ids is None else item_ids)
        deadline = asyncio.get_running_loop().time() + timeout
        while not wanted.issuperset(now := await self.statuses(ids)):
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not all {statuses} in {timeout} s, but {Counter(now)}")
            await asyncio.sleep(0.02)

    def ledger(self) -> LedgerAudit:
        """What the ledger's journal says."""
        return self.sandbox.ledger.audit(EVENT)

    def booked(self) -> dict[str, str]:
        """Every booking: the item it is for -> its status; in the order of the first attempts."""
        return {line.key: line.status for line in self.sandbox.ledger.bookings(EVENT)}

    # --- the end ------------------------------------------------------------------------------

    async def sell(
        self, unpaid: Collection[str] = (), timeout: float = 15, via: Replica | None = None
    ) -> None:
        """Let everybody pay who is at the till, but not the unpaid, until all have ended."""
        await wait_until(lambda: self._sell_on(unpaid, via), timeout=timeout, every=0.03)

    async def _sell_on(self, unpaid: Collection[str], via: Replica | None) -> bool:
        places = await self.places()
        at_the_till = [
            item_id
            for item_id, place in places.items()
            if place and place.status is Status.AWAITING_PAYMENT and item_id not in unpaid
        ]
        gate = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def pay(item_id: str) -> None:
            async with gate:
                try:
                    await self.pay(item_id, via=via)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _MAY_PASS | {grpc.StatusCode.FAILED_PRECONDITION}:
                        raise

        await asyncio.gather(*map(pay, at_the_till))
        return not at_the_till and all(
            place is None or place.status in FINAL for place in places.values()
        )

    async def broken(self) -> list[str]:
        """The promises that were not kept, by the audit logs and the ledger.

        The replicas are stopped for it, so that all is written.
        """
        places = await self.places()
        alive = [replica for replica in self.replicas if replica.is_alive]
        for replica in alive:
            replica.terminate()
        for replica in alive:
            assert await replica.ended() == 0, replica.log.read_text()[-2000:]
        verdict = promises.judge(
            read_journal(self.directory.glob("*.audit")),
            self.ledger(),
            self.sandbox.ledger.bookings(EVENT),
            [
                promises.Place(
                    item_id,
                    self.owners[item_id],
                    str(place.status) if place else "",
                    self.heard.get(item_id, ""),
                )
                for item_id, place in places.items()
            ],
        )
        return [f"{one.promise}: {one.cases} cases; {one.example}" for one in verdict.broken]

    async def kept(self) -> None:
        """Fail unless every promise was kept, and the engine's books balance."""
        if broken := await self.broken():
            raise AssertionError("\n".join(broken))
        await queue_audit.audit(self.client, self.queue)


_LIMITS: Final = QueueLimits(
    max_size=100_000,
    places_per_user=1,
    queue_timeout_ms=900_000,
    payment_timeout_ms=60_000,
    payment_grace_ms=60_000,
    result_ttl_ms=86_400_000,
    lease_ms=int(LEASE_SECONDS * 1000),
    max_retries=3,
)


def asked(user_id: str, seats: int = 1, **fields: Any) -> pb.EnqueueBookingRequest:
    """A request for seats of the event."""
    return pb.EnqueueBookingRequest(
        user_id=user_id, event_id=fields.pop("event_id", EVENT), seat_count=seats, **fields
    )


def read_journal(files: Iterable[Path]) -> Sequence[journal.AuditLine]:
    """What several audit logs tell, each change once, in order."""
    with ExitStack() as opened:
        logs = [opened.enter_context(file.open(encoding="utf-8")) for file in files]
        return journal.read_lines(itertools.chain.from_iterable(logs))
