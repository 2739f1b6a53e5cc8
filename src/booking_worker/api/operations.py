"""What a caller may ask of the queue, whatever transport the question came by.

Each operation checks its arguments, calls the queue once (a payment is then waited for), and
answers in the words of the domain or raises one of its errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from booking_worker.api import validation
from booking_worker.api.rates import Rates
from booking_worker.api.validation import AskedBooking
from booking_worker.domain import details
from booking_worker.domain.errors import (
    BookingWorkerError,
    InvalidRequest,
    ItemNotFound,
    NotYourItem,
    PeerRefused,
)
from booking_worker.domain.item_id import new_item_id
from booking_worker.domain.model import EventStatus, Join, Joined, Place, Status
from booking_worker.intake.intake import Intake
from booking_worker.queue.batching import Coalescer
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.metrics import Metrics

_CONFIRM_PATIENCE_SECONDS = 3.0
_CONFIRM_MARGIN_SECONDS = 0.2
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1
_TAKEN = frozenset({Status.CONFIRMING, Status.COMPLETED})
_NOT_YET = BookingWorkerError("not answered yet")


class QueueStatus(NamedTuple):
    """The books of an event and the workers that serve it."""

    event: EventStatus
    live_slots: int
    """Worker slots that are alive over all replicas."""


class Operations:
    """What clients and gateways may ask. Every operation may raise EngineUnavailable.

    ``live_slots`` gives the worker slots that are alive over all replicas; ``record`` takes a
    line for the audit log when somebody asked for what is another's.
    """

    def __init__(
        self,
        queue: BookingQueue,
        intake: Intake,
        metrics: Metrics,
        *,
        max_seats: int,
        live_slots: Callable[[], int],
        record: Callable[[Mapping[str, Any]], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._queue = queue
        self._intake = intake
        self._max_seats = max_seats
        self._live_slots = live_slots
        self._record = record
        self._sleep = sleep
        self._places: Coalescer[str, Place | None] = Coalescer(queue.ask_positions)
        self._rates = Rates(queue.status)
        self._refused = metrics.joins.labels("refused")

    def join_one(
        self, asked: AskedBooking, idempotency_key: str | None = None
    ) -> Awaitable[Joined]:
        """One place in line. Joining again is the same place.

        Raises:
            InvalidRequest: a field is wrong, or the idempotency key is.
            IdempotencyConflict, QueueFull (when awaited).
        """
        try:
            event_id, join = self._prepare(asked, idempotency_key)
        except InvalidRequest:
            self._refused.inc()
            raise
        return self._intake.join(event_id, join)

    async def join(
        self, asked: Sequence[AskedBooking], idempotency_keys: Sequence[str | None] = ()
    ) -> list[Joined | BookingWorkerError]:
        """One outcome for each request, in order: a place, or why it was refused.

        As many :meth:`join_one`, each with its own idempotency key (or none of them with one),
        but nothing is raised that concerns one request alone.
        """
        outcomes: list[Joined | BookingWorkerError] = []
        places: dict[str, tuple[list[int], list[Join]]] = {}
        for at, request in enumerate(asked):
            try:
                event_id, join = self._prepare(
                    request, idempotency_keys[at] if idempotency_keys else None
                )
            except InvalidRequest as error:
                self._refused.inc()
                outcomes.append(error)
                continue
            outcomes.append(_NOT_YET)
            place = places.get(event_id)
            if place is None:
                place = places[event_id] = ([], [])
            place[0].append(at)
            place[1].append(join)
        answers = await asyncio.gather(
            *(self._intake.join_many(event_id, joins) for event_id, (_, joins) in places.items())
        )
        for (indexes, _), answer in zip(places.values(), answers, strict=True):
            for at, outcome in zip(indexes, answer, strict=True):
                outcomes[at] = outcome
        return outcomes

    def _prepare(self, asked: AskedBooking, idempotency_key: str | None) -> tuple[str, Join]:
        request = validation.booking_request(asked, self._max_seats)
        event_id = request.event_id
        if idempotency_key is None:
            return event_id, Join(
                new_item_id(event_id), request.user_id, request.seats, details.pack(request)
            )
        return event_id, Join(
            new_item_id(event_id),
            request.user_id,
            request.seats,
            details.pack(request),
            validation.idempotency_key(idempotency_key),
            details.digest(request),
        )

    def wait_seconds(self, event_id: str, position: int) -> int:
        """Seconds until who has this position is admitted; -1 while none can be given."""
        return self._rates.wait_seconds(event_id, position)

    async def position(self, item_id: str, user_id: str) -> Place:
        """Where an item of this user stands.

        Raises:
            InvalidRequest, ItemNotFound, NotYourItem.
        """
        place = await self._places.ask(validation.event_of_item(item_id), item_id)
        if place is None or place.user_id != user_id:
            # Only now: a user id that is the place's own is as it should be.
            validation.user_id(user_id)
            if place is None:
                raise ItemNotFound(item_id)
            self._record_refusal("position", item_id, user_id)
            raise NotYourItem(item_id)
        return place

    async def _look(self, event_id: str, item_id: str) -> Place:
        place = await self._places.ask(event_id, item_id)
        if place is None:
            raise ItemNotFound(item_id)
        return place

    def _record_refusal(self, asked: str, item_id: str, user_id: str) -> None:
        self._record(
            {
                "who": f"user:{user_id}",
                "refused": asked,
                "item_id": item_id,
                "why": "the item is another user's",
            }
        )

    async def status(self, event_id: str) -> QueueStatus:
        """How the queue of an event is doing; all zeros for one that nobody has joined.

        Raises:
            InvalidRequest.
        """
        validation.event_id(event_id)
        return QueueStatus(await self._queue.status(event_id), self._live_slots())

    async def cancel(self, item_id: str, user_id: str, reason: str) -> Status:
        """Give up a place; the status afterwards, as clients see it. Repeating is safe.

        While processing, or while a hold is being released, the item is cancelled as soon as
        the booking has been given back.

        Raises:
            InvalidRequest, ItemNotFound, NotYourItem, WrongStatus.
        """
        validation.event_of_item(item_id)
        validation.user_id(user_id)
        validation.reason(reason)
        try:
            status = await self._queue.cancel(item_id, user_id, reason, f"user:{user_id}")
        except NotYourItem:
            self._record_refusal("cancel", item_id, user_id)
            raise
        return status.shown

    async def confirm_payment(
        self,
        item_id: str,
        user_id: str,
        payment_reference: str,
        seconds_left: float | None = None,
    ) -> Place:
        """The item once its booking is confirmed; still `confirming` when that takes longer.

        ``seconds_left`` is what the caller's own deadline leaves. Repeating is safe and gives
        the same answer.

        Raises:
            InvalidRequest, ItemNotFound, NotYourItem, WrongStatus.
            PeerRefused: the booking could not be confirmed; its message says why.
        """
        event_id = validation.event_of_item(item_id)
        validation.user_id(user_id)
        validation.payment_reference(payment_reference)
        patience = _CONFIRM_PATIENCE_SECONDS
        if seconds_left is not None:
            patience = min(patience, seconds_left - _CONFIRM_MARGIN_SECONDS)
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        try:
            await self._queue.ask_confirm(item_id, user_id, payment_reference)
        except NotYourItem:
            self._record_refusal("confirm_payment", item_id, user_id)
            raise
        place = await self._look(event_id, item_id)
        pause = _FIRST_PAUSE_SECONDS
        while place.status is Status.CONFIRMING and loop.time() + pause < until:
            await self._sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
            place = await self._look(event_id, item_id)
        if place.status in _TAKEN:
            return place
        raise PeerRefused(
            "Booking Service",
            place.message or f"the payment was not taken; the item is {place.status.shown}",
        )

    async def drain(self) -> None:
        """Return once everything asked so far has been answered."""
        await self._places.drain()
        await self._rates.settle()
