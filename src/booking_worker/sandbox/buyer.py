"""One buyer: joins, waits, and then does as people do."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from booking_worker.domain.model import FINAL, Status
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.sandbox.queue_client import QueueClient, Refused


class Behaviour(StrEnum):
    """What a buyer is going to do."""

    PAY = "pay"
    DONT_PAY = "dont_pay"
    """Lets the hold run out."""
    CANCEL = "cancel"
    """Gives up, some while they wait and some when they should pay."""
    PAY_LATE = "pay_late"
    """Pays when the hold has ended."""
    JOIN_TWICE = "join_twice"
    """Joins a second time, some at the same instant over another connection; then pays."""


@dataclass(slots=True)
class BuyerResult:
    """What became of a buyer. Times are seconds since the first buyer set out."""

    user_id: str
    behaviour: Behaviour
    seats: int
    item_id: str = ""
    """Empty when the queue refused the join."""
    status: str = ""
    """The last status seen; ``not_found`` when the queue did not know an item it had given."""
    statuses: list[str] = field(default_factory=list)
    """All that were seen, in order."""
    asked_at: float = 0.0
    """When the first join was sent."""
    joined_at: float | None = None
    """When the place was acknowledged."""
    admitted_at: float | None = None
    """When it was first seen to be out of the line, by a poll."""
    finished_at: float | None = None
    """When its final status was seen; None when it was given up on."""
    refused: str = ""
    """Why the queue said no, the last time that it did."""
    two_places: bool = False
    """Whether joining twice gave two live places; must never be."""
    booking_id: str = ""
    booking_reference: str = ""
    """Told by the payment that was taken."""

    @property
    def is_final(self) -> bool:
        """Whether the queue gave it a final status."""
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class Habits:
    """How buyers go about it. All in seconds."""

    think_seconds: float = 0.5
    """They pay within this time of their turn."""
    patience_seconds: float = 1.0
    """Those who give up waiting do so within this time."""
    shortest_poll_seconds: float = 0.25
    longest_poll_seconds: float = 5.0


_MOST_PAYMENTS: Final = 5
_POSITIONS_A_SECOND: Final = 200
"""How fast a line moves of which nothing is known yet."""
_POLLS_OF_A_WAIT: Final = 4
_ADMITTED: Final = frozenset(
    {Status.PROCESSING, Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.COMPLETED}
)


class Buyer:
    """Lives from the join to a final status.

    ``doors`` bounds how many join at once. ``shortest_pause`` gives the seconds that everybody
    in line has to leave between polls; ``on_status`` is told each status, after the one before.
    """

    __slots__ = (
        "_client",
        "_connection",
        "_doors",
        "_event_id",
        "_habits",
        "_on_status",
        "_pay_by_ms",
        "_payments",
        "_rng",
        "_shortest_pause",
        "_started",
        "_uses_key",
        "result",
    )

    def __init__(
        self,
        result: BuyerResult,
        client: QueueClient,
        event_id: str,
        habits: Habits,
        *,
        number: int,
        seed: int,
        started: float,
        doors: asyncio.Semaphore,
        shortest_pause: Callable[[], float],
        on_status: Callable[[str, str], None],
    ) -> None:
        self.result = result
        self._client = client
        self._event_id = event_id
        self._habits = habits
        self._connection = number
        self._rng = random.Random(f"{seed}/{number}")
        self._uses_key = number % 2 == 1
        self._started = started
        self._doors = doors
        self._shortest_pause = shortest_pause
        self._on_status = on_status
        self._pay_by_ms = 0
        self._payments = 0

    async def live(self) -> None:
        """Join, and do as the behaviour says until the item is final or lost."""
        result = self.result
        try:
            async with self._doors:
                await self._join()
            if result.behaviour is Behaviour.CANCEL and self._rng.random() < 0.5:  # noqa: PLR2004
                await asyncio.sleep(self._rng.random() * self._habits.patience_seconds)
                await self._try_cancel()
            while not result.is_final:
                place = await self._look(result.item_id)
                self._saw(place)
                if place.status == Status.AWAITING_PAYMENT:
                    await self._at_the_till(place)
                elif not result.is_final:
                    await asyncio.sleep(self._pause(place))
        except Refused as error:
            result.refused = str(error)
            if error.code == "NOT_FOUND" and result.item_id:
                self._set_status("not_found")
            return
        result.finished_at = self._now()

    # --- joining ------------------------------------------------------------------------------

    async def _join(self) -> None:
        result = self.result
        result.asked_at = self._now()
        request = pb.EnqueueBookingRequest(
            user_id=result.user_id,
            event_id=self._event_id,
            seat_count=result.seats,
            total_amount=49.5 * result.seats,
            currency="EUR",
            metadata={"source": self._rng.choice(("web", "app")), "locale": "en"},
        )
        key = f"first-{result.user_id}" if self._uses_key else ""
        if result.behaviour is not Behaviour.JOIN_TWICE:
            first = await self._client.join(request, self._connection, key)
            result.item_id = first.queue_item_id
        elif self._rng.random() < 0.5:  # noqa: PLR2004 - every other one
            both = await asyncio.gather(
                self._client.join(request, self._connection, key),
                self._client.join(request, self._connection + 1),
            )
            await self._two_answers(*(answer.queue_item_id for answer in both))
        else:
            first = await self._client.join(request, self._connection, key)
            again = await self._client.join(request, self._connection + 1)
            await self._two_answers(first.queue_item_id, again.queue_item_id)
        result.joined_at = self._now()

    async def _two_answers(self, first: str, second: str) -> None:
        """Two answers should name one place; if not, only one of them may be live."""
        self.result.item_id = second
        if first == second:
            return
        places = [await self._look(item_id) for item_id in (first, second)]
        live = [place.status not in FINAL for place in places]
        self.result.two_places = all(live)
        if live == [True, False]:
            self.result.item_id = first

    # --- in line ------------------------------------------------------------------------------

    async def _look(self, item_id: str) -> pb.GetQueuePositionResponse:
        request = pb.GetQueuePositionRequest(queue_item_id=item_id, user_id=self.result.user_id)
        return await self._client.position(request, self._connection)

    def _saw(self, place: pb.GetQueuePositionResponse) -> None:
        result = self.result
        if place.status != result.status:
            self._set_status(place.status)
        if result.admitted_at is None and (place.status in _ADMITTED or place.booking_id):
            result.admitted_at = self._now()
        if place.booking_id:
            result.booking_id = place.booking_id
        if place.pay_by_unix_ms:
            self._pay_by_ms = place.pay_by_unix_ms

    def _pause(self, place: pb.GetQueuePositionResponse) -> float:
        """Seconds until the next poll: often near the head, seldom far from it."""
        habits = self._habits
        wait: float = place.estimated_wait_seconds
        if wait < 0:
            wait = place.position / _POSITIONS_A_SECOND
        pause = min(
            habits.longest_poll_seconds, max(habits.shortest_poll_seconds, wait / _POLLS_OF_A_WAIT)
        )
        if place.status == Status.WAITING:
            pause = max(pause, self._shortest_pause())
        return pause * (0.75 + self._rng.random() / 2)

    # --- at the till --------------------------------------------------------------------------

    async def _at_the_till(self, place: pb.GetQueuePositionResponse) -> None:
        behaviour = self.result.behaviour
        remaining = max(0.0, self._pay_by_ms / 1000 - time.time())
        if behaviour is Behaviour.CANCEL:
            await self._try_cancel()
            await asyncio.sleep(self._habits.shortest_poll_seconds)
        elif behaviour is Behaviour.DONT_PAY or self._payments >= _MOST_PAYMENTS:
            # Nothing happens before the hold ends.
            await asyncio.sleep(max(self._pause(place), min(remaining, 60.0)))
        elif behaviour is Behaviour.PAY_LATE:
            await asyncio.sleep(remaining + self._rng.random())
            await self._try_to_pay()
        else:
            await asyncio.sleep(min(self._habits.think_seconds, remaining / 2) * self._rng.random())
            await self._try_to_pay()

    async def _try_to_pay(self) -> None:
        result = self.result
        self._payments += 1
        try:
            paid = await self._client.pay(
                result.item_id, result.user_id, f"pay-{result.item_id}", self._connection
            )
        except Refused as error:
            self._bear(error)
            await asyncio.sleep(self._habits.shortest_poll_seconds)
            return
        result.booking_reference = paid.booking_reference
        self._set_status(paid.status)

    async def _try_cancel(self) -> None:
        result = self.result
        try:
            await self._client.cancel(result.item_id, result.user_id, self._connection)
        except Refused as error:
            self._bear(error)

    def _bear(self, error: Refused) -> None:
        """It was too late for that; what became of the item is another question."""
        if error.code != "FAILED_PRECONDITION":
            raise error
        self.result.refused = str(error)

    # --- inside -------------------------------------------------------------------------------

    def _set_status(self, status: str) -> None:
        result = self.result
        if status == result.status:
            return
        self._on_status(result.status, status)
        result.status = status
        result.statuses.append(status)

    def _now(self) -> float:
        return time.monotonic() - self._started
