"""A queue on a real engine with a clock that the test moves, and the way to every status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from booking_worker.domain import details
from booking_worker.domain.item_id import new_item_id
from booking_worker.domain.model import (
    BookingRequest,
    Change,
    EventStatus,
    Held,
    ItemRecord,
    Join,
    Joined,
    Lease,
    Status,
    Task,
)
from booking_worker.queue import keys, records
from booking_worker.queue.booking_queue import BookingQueue, Claimed, QueueLimits
from tests.support import queue_audit
from tests.support.clock import MOVED_BY_TESTS, Clock

EVENT = "concert"
ALL_TASKS = frozenset(Task)

LIMITS = QueueLimits(
    max_size=1_000,
    places_per_user=1,
    queue_timeout_ms=900_000,
    payment_timeout_ms=600_000,
    payment_grace_ms=60_000,
    result_ttl_ms=3_600_000,
    lease_ms=30_000,
    max_retries=2,
    max_crashes=3,
)


def a_join(
    user_id: str = "ann", seats: int = 1, event_id: str = EVENT, key: str = "", digest: str = ""
) -> Join:
    """A request of this user on its way into the line."""
    request = BookingRequest(event_id, user_id, (), seats, 12.5, "EUR", {"from": "test"})
    return Join(new_item_id(event_id), user_id, seats, details.pack(request), key, digest)


def nowhere() -> BookingQueue:
    """A queue whose engine is not there."""
    client = Redis(unix_socket_path="/nonexistent/engine.sock", retry=Retry(NoBackoff(), 0))
    return BookingQueue(client, LIMITS)


class Stage:
    """One queue, its engine and its clock."""

    def __init__(
        self, client: Redis, limits: QueueLimits = LIMITS, scripts: Mapping[str, str] | None = None
    ) -> None:
        self.client = client
        self.limits = limits
        self.clock = Clock(client)
        self.queue = BookingQueue(client, limits, MOVED_BY_TESTS | dict(scripts or {}))

    def limit(self, **changes: int) -> None:
        """From now on with other limits."""
        self.limits = replace(self.limits, **changes)
        self.queue = BookingQueue(self.client, self.limits, MOVED_BY_TESTS)

    async def audit(self) -> None:
        """Fail when anything of what must always hold does not."""
        await queue_audit.audit(self.client, self.queue)

    async def join(self, *joins: Join, event_id: str = EVENT, actor: str = "") -> list[Any]:
        """The outcomes of joins in one call."""
        return await self.queue.join(event_id, joins, actor)

    async def join_one(self, user_id: str = "ann", seats: int = 1, **more: str) -> str:
        """The id of a new place."""
        join = a_join(user_id, seats, **more)
        (joined,) = await self.queue.join(more.get("event_id", EVENT), [join])
        assert isinstance(joined, Joined)
        assert not joined.already_queued
        return joined.item_id

    async def join_many(self, number: int, seats: int = 1, name: str = "user") -> list[str]:
        """The ids of new places of as many users, in order."""
        outcomes = await self.join(*(a_join(f"{name}-{at}", seats) for at in range(number)))
        assert not any(outcome.already_queued for outcome in outcomes)
        return [outcome.item_id for outcome in outcomes]

    async def capacity(self, available: int | None, event_id: str = EVENT) -> int:
        """Refresh capacity with this answer, at once; answers how many wait."""
        question = await self.queue.ask_capacity(event_id)
        return await self.queue.set_capacity(event_id, question, available)

    async def claimed(
        self, limit: int = 1, tasks: frozenset[Task] = ALL_TASKS, event_id: str = EVENT
    ) -> Claimed:
        """What a claim of worker ``w`` answers."""
        return await self.queue.claim(event_id, "w", limit, tasks)

    async def claim(
        self, limit: int = 1, tasks: frozenset[Task] = ALL_TASKS, event_id: str = EVENT
    ) -> list[Lease]:
        """The leases of a claim of worker ``w``, which has nothing else in hand."""
        claimed = await self.claimed(limit, tasks, event_id)
        if not claimed.leases and claimed.suspects:
            claimed = await self.queue.claim(event_id, "w", limit, tasks, suspects=True)
        return claimed.leases

    async def claim_one(self, task: Task = Task.RESERVE) -> Lease:
        """The one lease of the next task of this kind."""
        (lease,) = await self.claim(1, frozenset({task}))
        assert lease.task is task
        return lease

    async def processing(self, user_id: str = "ann", seats: int = 1) -> Lease:
        """The lease of a reserve of this user, who is alone in the line."""
        item_id = await self.join_one(user_id, seats)
        if (await self.status()).capacity in {None, 0}:
            await self.capacity(10)
        lease = await self.claim_one()
        assert lease.item_id == item_id
        return lease

    async def held_item(self, user_id: str = "ann", seats: int = 1, **held: Any) -> str:
        """The id of an item that awaits payment."""
        lease = await self.processing(user_id, seats)
        values: dict[str, Any] = {"booking_id": f"B-{user_id}", "booking_reference": "", **held}
        assert (
            await self.queue.settle_held(lease, Held(**{"hold_ms": None, **values}))
            is Status.AWAITING_PAYMENT
        )
        return lease.item_id

    async def confirming(self, user_id: str = "ann", seats: int = 1) -> Lease:
        """The lease of a confirm."""
        item_id = await self.held_item(user_id, seats)
        assert await self.queue.ask_confirm(item_id, user_id, "PAY-1") is Status.CONFIRMING
        return await self.claim_one(Task.CONFIRM)

    async def releasing(self, user_id: str = "ann", seats: int = 1, reason: str = "no") -> Lease:
        """The lease of a release that its user asked for."""
        item_id = await self.held_item(user_id, seats)
        assert await self.queue.cancel(item_id, user_id, reason, "test") is Status.RELEASING
        return await self.claim_one(Task.RELEASE)

    async def lease_of(self, task: Task, user_id: str = "ann", seats: int = 1) -> Lease:
        """A lease of this kind."""
        ways = {
            Task.RESERVE: self.processing,
            Task.CONFIRM: self.confirming,
            Task.RELEASE: self.releasing,
        }
        return await ways[task](user_id, seats)

    async def dead_letter(
        self, task: Task = Task.RESERVE, user_id: str = "ann", seats: int = 1
    ) -> str:
        """The id of a dead letter that failed at this task."""
        lease = await self.lease_of(task, user_id, seats)
        while await self.queue.settle_retry(lease, 0, "it is down") is not Status.FAILED:
            await self.queue.expire(EVENT)
            lease = await self.claim_one(task)
        return lease.item_id

    async def in_status(self, status: Status, user_id: str = "ann", seats: int = 1) -> str:
        """The id of an item of this user in any status."""
        if status is Status.WAITING:
            return await self.join_one(user_id, seats)
        if status is Status.AWAITING_PAYMENT:
            return await self.held_item(user_id, seats)
        if status is Status.FAILED:
            return await self.dead_letter(Task.RESERVE, user_id, seats)
        if status is Status.SOLD_OUT:
            return await self.sold_out(user_id, seats)
        queue = self.queue
        ways: dict[Status, tuple[Task, Callable[[Lease], Awaitable[Any]] | None]] = {
            Status.PROCESSING: (Task.RESERVE, None),
            Status.CONFIRMING: (Task.CONFIRM, None),
            Status.RELEASING: (Task.RELEASE, None),
            Status.REJECTED: (Task.RESERVE, lambda lease: queue.settle_rejected(lease, "taken")),
            Status.EXPIRED: (Task.CONFIRM, lambda lease: queue.settle_gone(lease, "gone")),
            Status.CANCELLED: (Task.RELEASE, queue.settle_released),
            Status.COMPLETED: (Task.CONFIRM, lambda lease: queue.settle_confirmed(lease, "REF")),
        }
        task, settle = ways[status]
        lease = await self.lease_of(task, user_id, seats)
        if settle is not None:
            assert await settle(lease) is status
        return lease.item_id

    async def sold_out(self, user_id: str = "ann", seats: int = 1) -> str:
        """The id of an item that heard that all is sold."""
        item_id = await self.join_one(user_id, seats)
        await self.capacity(0)
        assert await self.queue.sell_out(EVENT) == 0
        return item_id

    @asynccontextmanager
    async def wakes(self) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
        """Gives the events that workers were woken for since it was asked last."""
        async with self.client.pubsub(ignore_subscribe_messages=True) as heard:
            await heard.subscribe(keys.WAKE_CHANNEL)
            await heard.get_message(timeout=5)  # that it is subscribed

            async def woken_for() -> list[str]:
                # Whatever was said before is heard before this.
                await self.client.publish(keys.WAKE_CHANNEL, "nobody")
                told: list[str] = []
                while "nobody" not in told:
                    message = await heard.get_message(timeout=5)
                    if message is not None:
                        told.append(message["data"].decode())
                return told[:-1]

            yield woken_for

    async def status(self) -> EventStatus:
        """The books."""
        return await self.queue.status(EVENT)

    async def item(self, item_id: str) -> ItemRecord:
        """One item with all that is known of it."""
        return await self.queue.item(item_id)

    async def changes(self, event_id: str = EVENT) -> list[Change]:
        """All that has happened."""
        entries = await self.client.xrange(keys.of_event(event_id)["changes"])
        return [
            change
            for entry_id, fields in entries
            for change in records.changes(event_id, entry_id.decode(), fields)
        ]

    async def last_change(self) -> Change:
        """What happened last."""
        return (await self.changes())[-1]

    async def listed(self) -> list[str]:
        """The events that the engine lists."""
        return [name.decode() for name in await self.client.zrange(keys.EVENTS, 0, -1)]

    def key(self, name: str, event_id: str = EVENT) -> str:
        """The engine's name of a key."""
        return keys.of_event(event_id)[name]
