"""What an operator may ask of the queue, whatever transport the question came by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from booking_worker.api import validation
from booking_worker.domain.errors import InvalidRequest
from booking_worker.domain.model import EventStatus, ItemRecord, Status
from booking_worker.queue.booking_queue import BookingQueue

MOST_ITEMS_PER_PAGE = 500

_INDEXES: Final[Mapping[Literal["waiting", "admitted", "dead"], frozenset[Status]]] = {
    "waiting": frozenset({Status.WAITING}),
    "admitted": frozenset(
        {Status.PROCESSING, Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.RELEASING}
    ),
    "dead": frozenset({Status.FAILED}),
}
_LISTED: Final = frozenset().union(*_INDEXES.values())
_MOST_OFFSET = 2**53
_MOST_OPERATOR_CHARACTERS = 128


class Administration:
    """Every operation may raise EngineUnavailable, and InvalidRequest that names a field."""

    def __init__(self, queue: BookingQueue, record: Callable[[Mapping[str, Any]], None]) -> None:
        """``record`` takes a line for the audit log about what is told by no change of an item."""
        self._queue = queue
        self._record = record

    async def events(self) -> list[str]:
        """The events that anyone ever joined, by name."""
        return sorted(await self._queue.events())

    async def event_status(self, event_id: str) -> EventStatus:
        """The books of one event; all zeros for one that nobody has joined."""
        return await self._queue.status(validation.event_id(event_id))

    async def items(
        self, event_id: str, statuses: Sequence[str], offset: int, limit: int
    ) -> list[ItemRecord]:
        """A page of at most 500 live items and dead letters: who waits, in order, comes first.

        ``statuses`` are those wanted, none for all. Items that ended are found by id alone.
        """
        validation.event_id(event_id)
        wanted = _statuses(statuses)
        skip, limit = _offset(offset), _limit(limit)
        page: list[ItemRecord] = []
        for index, has in _INDEXES.items():
            if wanted.isdisjoint(has):
                continue
            at = 0
            if index == "waiting" and skip:
                # The one index that may be long: the engine skips it for us.
                at = min(skip, (await self._queue.status(event_id)).waiting)
                skip -= at
            while len(page) < limit:
                records = await self._queue.list_items(event_id, index, at, MOST_ITEMS_PER_PAGE)
                if not records:
                    break
                fitting = [record for record in records if record.status in wanted]
                page += fitting[skip : skip + limit - len(page)]
                skip = max(0, skip - len(fitting))
                at += MOST_ITEMS_PER_PAGE
        return page

    async def item(self, item_id: str) -> ItemRecord:
        """One item.

        Raises:
            ItemNotFound.
        """
        validation.event_of_item(item_id)
        return await self._queue.item(item_id)

    async def cancel(self, item_id: str, reason: str, operator: str) -> Status:
        """Cancel anyone's item, as far as its status allows; the status afterwards.

        Raises:
            ItemNotFound, WrongStatus.
        """
        validation.event_of_item(item_id)
        validation.reason(reason)
        return await self._queue.cancel(item_id, "", reason, _actor(operator))

    async def dead_letters(self, event_id: str, offset: int, limit: int) -> list[ItemRecord]:
        """A page of at most 500 dead letters, the oldest first."""
        validation.event_id(event_id)
        return await self._queue.list_items(event_id, "dead", _offset(offset), _limit(limit))

    async def requeue(self, item_id: str, operator: str) -> Status:
        """Put a dead letter back where it was; the status afterwards.

        Raises:
            ItemNotFound, WrongStatus, UserHasPlace.
        """
        validation.event_of_item(item_id)
        return await self._queue.requeue(item_id, _actor(operator))

    async def discard(self, item_id: str, operator: str) -> None:
        """Give a dead letter up for good.

        Raises:
            ItemNotFound, WrongStatus.
        """
        event_id = validation.event_of_item(item_id)
        actor = _actor(operator)
        why = (await self._queue.item(item_id)).message
        await self._queue.discard(item_id, actor)
        self._record(
            {"who": actor, "did": "discard", "event_id": event_id, "item_id": item_id, "why": why}
        )

    async def pause(self, event_id: str, reason: str, operator: str) -> None:
        """Admit nobody to an event, or to any when ``event_id`` is empty.

        Joins, positions, payments, cancels and releases go on. Pausing again changes the reason.
        """
        if event_id:
            validation.event_id(event_id)
        validation.reason(reason)
        if not reason.strip():
            raise InvalidRequest("reason", "must say why")
        actor = _actor(operator)
        await self._queue.pause(event_id, reason, actor)
        self._record({"who": actor, "did": "pause", "event_id": event_id, "why": reason})

    async def resume(self, event_id: str, operator: str) -> str:
        """Admit again, to an event or to all; why nobody was, or empty when they were.

        An event that was paused by itself stays so when all are resumed, and one that is resumed
        still waits while all are paused.
        """
        if event_id:
            validation.event_id(event_id)
        actor = _actor(operator)
        was = await self._queue.resume(event_id)
        if was:
            self._record({"who": actor, "did": "resume", "event_id": event_id, "why": was})
        return was


def _statuses(given: Sequence[str]) -> frozenset[Status]:
    wanted = frozenset(given)
    if not wanted <= _LISTED:
        raise InvalidRequest("statuses", f"must be of {', '.join(sorted(_LISTED))}")
    return frozenset(Status(status) for status in wanted) or _LISTED


def _offset(given: int) -> int:
    if not 0 <= given <= _MOST_OFFSET:
        raise InvalidRequest("offset", "must be 0 or more")
    return given


def _limit(given: int) -> int:
    if given < 0:
        raise InvalidRequest("limit", "must be 0 or more")
    return min(given or MOST_ITEMS_PER_PAGE, MOST_ITEMS_PER_PAGE)


def _actor(operator: str) -> str:
    if len(operator) > _MOST_OPERATOR_CHARACTERS or not operator.isprintable():
        raise InvalidRequest(
            "operator", f"must have at most {_MOST_OPERATOR_CHARACTERS} printable characters"
        )
    return f"operator:{operator or 'unnamed'}"
