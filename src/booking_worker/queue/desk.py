"""What operators and housekeeping look at, and the little that they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from booking_worker.domain.item_id import event_of
from booking_worker.domain.model import EventStatus, ItemRecord, Status
from booking_worker.queue import keys, records
from booking_worker.queue.transitions import Transitions

SWEPT_INDEXES = ("items", "users", "timeouts", "tasks", "positions", "admitted", "dead")

_LIST_VALUES = 4


class Mended(NamedTuple):
    """One disagreement of two indexes that a sweep found and mended."""

    event_id: str
    name: str
    """The item's id, or the user's."""
    wrong: str


class Look(NamedTuple):
    """Whether housekeeping has anything to do for an event."""

    alive: bool
    """Somebody has a deadline or a task."""
    untold: bool
    """There are changes that nobody was told of."""


class TakenOver(NamedTuple):
    """What the latest holder of an event's lock is told."""

    token: int
    """Its fencing token: no earlier holder's word counts any more."""
    cursor: str
    """The last change that people were told of; empty when there is none."""


class Desk(Transitions):
    """The transitions that operators and housekeeping ask for."""

    async def status(self, event_id: str) -> EventStatus:
        """The books of one event; zeros for one that nobody has joined."""
        status = records.event_status(event_id, await self._run("status", event_id))
        if self.layout and self.layout.paused:
            return replace(status, paused=True, paused_because=self.layout.paused)
        return status

    async def events(self) -> list[str]:
        """All events that somebody joined and that are not over, the latest first.

        Those that were listed from here in the last minute are among them, also where an engine
        has lost that since: who joined it then must not wait for the next who joins.
        """
        names: list[Any] = await self._runner.command(keys.EVENTS, "ZREVRANGE", keys.EVENTS, 0, -1)
        listed = [name.decode() for name in names]
        return [*(self._listed_lately() - set(listed)), *listed]

    async def retire(self) -> list[str]:
        """Take the events that are over off the list of events; answers which.

        Over is an event when nobody is left in it, no dead letter either, and nothing has
        happened for RESULT_TTL_SECONDS. Its books stay, and a join lists it again.
        """
        return [
            event_id
            for event_id, listed_at in await self._listed_before()
            if await self._wind_up(event_id) and await self._unlist(event_id, listed_at)
        ]

    async def _listed_before(self) -> list[tuple[str, int]]:
        flat = await self._run("listed_before", "")
        return [(flat[at].decode(), int(flat[at + 1])) for at in range(0, len(flat), 2)]

    async def _wind_up(self, event_id: str) -> bool:
        is_over: int = await self._run("wind_up", event_id)
        return is_over == 1

    async def _unlist(self, event_id: str, listed_at: int) -> bool:
        is_off: int = await self._run("unlist_event", event_id, listed_at=listed_at)
        return is_off == 1

    async def list_items(
        self,
        event_id: str,
        index: Literal["waiting", "admitted", "dead"],
        offset: int,
        limit: int,
    ) -> list[ItemRecord]:
        """Live items of one index, in the order of the line (dead letters: of their death)."""
        flat = await self._run("list_items", event_id, index=index, offset=offset, limit=limit)
        return [
            records.item_record(flat[at].decode(), event_id, *flat[at + 1 : at + _LIST_VALUES])
            for at in range(0, len(flat), _LIST_VALUES)
        ]

    async def item(self, item_id: str) -> ItemRecord:
        """One item with all that is known of it. Raises ItemNotFound."""
        event_id = event_of(item_id)
        answer = await self._run("item", event_id, item_id=item_id)
        return records.item_record(item_id, event_id, *answer)

    async def requeue(self, item_id: str, actor: str) -> Status:
        """Put a dead letter back to its old place, or to the task that it failed at.

        Raises:
            ItemNotFound, WrongStatus
            UserHasPlace: its user has another place by now.
        """
        return await self._run_status("requeue", event_of(item_id), item_id=item_id, actor=actor)

    async def discard(self, item_id: str, actor: str) -> Status:
        """Let a dead letter go for good. Raises ItemNotFound, WrongStatus."""
        return await self._run_status("discard", event_of(item_id), item_id=item_id, actor=actor)

    async def sweep(self, event_id: str) -> list[Mended]:
        """Cross-check all indexes of one event and mend what disagrees; answers what did.

        Goes in small chunks, so that nobody else waits for it.
        """
        mended: list[Mended] = []
        for index in SWEPT_INDEXES:
            cursor = "0"
            while True:
                answer = await self._run(
                    "sweep", event_id, index=index, cursor=cursor, actor="sweep"
                )
                cursor = answer[0].decode()
                mended += [
                    Mended(event_id, answer[at].decode(), answer[at + 1].decode())
                    for at in range(1, len(answer), 2)
                ]
                if cursor == "0":
                    break
        return mended

    async def look(self, event_id: str) -> Look:
        """Whether there is anything to do for an event."""
        alive, untold = await self._run("look", event_id)
        return Look(bool(alive), bool(untold))

    async def take_over(self, event_id: str) -> TakenOver:
        """Become the one whose word counts; only for who holds the event's lock."""
        token, cursor = await self._run("take_over", event_id)
        return TakenOver(token, cursor.decode())

    async def save_cursor(self, event_id: str, token: int, cursor: str, oldest_kept: str) -> bool:
        """Remember the last change told, and let go of those before ``oldest_kept``.

        False, and nothing is changed, when another has taken the event over.
        """
        saved: int = await self._run(
            "save_cursor", event_id, token=token, cursor=cursor, oldest_kept=oldest_kept
        )
        return saved == 1

    async def tell_freed(self, event_ids: Sequence[str]) -> None:
        """Tell all replicas that nobody looks after these events any more."""
        channel = keys.FREE_CHANNEL
        await self._runner.command(channel, "PUBLISH", channel, "\n".join(event_ids))

    async def ask_for_refresh(self, event_id: str) -> None:
        """Have the capacity refreshed by the replica that looks after the event."""
        channel = keys.REFRESH_CHANNEL
        await self._runner.command(channel, "PUBLISH", channel, event_id)

    async def heartbeat(self, worker_id: str, slots: int, ttl_ms: int) -> int:
        """Say that this worker lives with so many slots (0: it leaves); answers all live slots."""
        live: int = await self._run(
            "heartbeat", "", worker_id=worker_id, slots=slots, ttl_ms=ttl_ms
        )
        return live
