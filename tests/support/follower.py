"""A replica's feed with its housekeeping, and what it handed over."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis, RedisCluster

from booking_worker.domain.model import Change
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.changes import ChangeFeed
from booking_worker.queue.lock import Redlock
from booking_worker.worker.housekeeping import Housekeeping


class Follower:
    """A feed, and what it handed over."""

    def __init__(self, client: Redis | RedisCluster, queue: BookingQueue) -> None:
        self.client = client
        self.queue = queue
        self.taken: list[Change] = []
        self.gaps: list[str] = []
        self.errors: list[Exception] = []
        self.refusals = 0
        self.feed = self.another()

    def another(self) -> ChangeFeed:
        """As after a restart: it knows nothing but what the engine kept."""
        self.house = Housekeeping(self.queue, Redlock([self.client]))
        self.feed = ChangeFeed(
            self.client,
            self.queue,
            self.house,
            on_changes=self.take,
            on_gap=self.gaps.append,
            on_error=self.errors.append,
        )
        return self.feed

    async def start(self) -> None:
        await self.house.start()
        await self.feed.start()

    async def stop(self) -> None:
        """As the application does: the feed lets go of the locks."""
        await self.feed.stop()
        await self.house.stop()

    async def run_once(self) -> bool:
        """One round of both, when all that is alive has been looked for."""
        await self.house.run_once()
        return await self.feed.run_once()

    async def crash(self) -> None:
        """It is gone, with what it had not saved, and its locks have lapsed; another begins."""
        held = self.house.held()
        await self.house._end()
        for event_id in held:
            await self.client.delete(keys.of_event(event_id)["lock"])
        self.another()

    async def take(self, changes: Sequence[Change]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ValueError("the disk is full")
        self.taken += changes

    @property
    def users(self) -> list[str]:
        return [change.user_id for change in self.taken]
