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
    acknowledged: list[str] = field(default_factory=list)
    """Every item that the queue ever answered a join with."""
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
    unexpected: str = ""
    """A no that nobody should hear, and after which the buyer gave up; empty when none was."""
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


_HALF: Final = 0.5
_MOST_PAYMENTS: Final = 5
_POSITIONS_A_SECOND: Final = 200
"""How fast a line moves of which nothing is known yet."""
_POLLS_OF_A_WAIT: Final = 4
_LONG_WAIT_SECONDS: Final = 30.0
"""Nobody who waits that long minds a slow answer."""
_ADMITTED: Final = frozenset(
    {Status.PROCESSING, Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.COMPLETED}
)


class Buyer:
    """Lives from the join to a final status.

    ``luck``, between 0 and 1, decides where people differ: below a half they give up while they
    wait rather than when they should pay, and join twice at one instant rather than one after
    the other. ``rng`` is for jitter, and may be everybody's. ``doors`` bounds how many join at
    once; ``everybodys_pause`` gives the seconds to leave between polls by those whose wait is
    long; ``on_status`` is told each status, after the one before.
    """

    __slots__ = (
        "_client",
        "_connection",
        "_doors",
        "_event_id",
        "_everybodys_pause",
        "_habits",
        "_luck",
        "_on_status",
        "_pay_by_ms",
        "_payments",
        "_rng",
        "_started",
        "_uses_key",
        "_wait_seconds",
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
        luck: float,
        rng: random.Random,
        started: float,
        doors: asyncio.Semaphore,
        everybodys_pause: Callable[[], float],
        on_status: Callable[[str, str], None],
    ) -> None:
        self.result = result
        self._client = client
        self._event_id = event_id
        self._habits = habits
        self._connection = number
        self._luck = luck
        self._rng = rng
        self._uses_key = number % 2 == 1
        self._started = started
        self._doors = doors
        self._everybodys_pause = everybodys_pause
        self._on_status = on_status
        self._pay_by_ms = 0
        self._payments = 0
        self._wait_seconds = 0.0

    async def live(self) -> None:
        """Join, and do as the behaviour says until the item is final or lost."""
        result = self.result
        try:
            async with self._doors:
                await self._join()
            if result.behaviour is Behaviour.CANCEL and self._luck < _HALF:
                await asyncio.sleep(self._luck / _HALF * self._habits.patience_seconds)
                await self._try_cancel()
            else:
                await asyncio.sleep(self._pause_in_line())
            while not result.is_final:
                place = await self._look(result.item_id)
                self._saw(place)
                if place.status == Status.AWAITING_PAYMENT:
                    await self._at_the_till()
                elif not result.is_final:
                    await asyncio.sleep(self._pause_in_line())
        except Refused as error:
            result.refused = result.unexpected = str(error)
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
            metadata={"source": "web" if self._uses_key else "app", "locale": "en"},
        )
        key = f"first-{result.user_id}" if self._uses_key else ""
        connection = self._connection
        if result.behaviour is not Behaviour.JOIN_TWICE:
            answers = [await self._join_once(request, connection, key)]
        elif self._luck < _HALF:
            both = (
                self._join_once(request, connection, key),
                self._join_once(request, connection + 1),
            )
            answers = list(await asyncio.gather(*both))
        else:
            first = await self._join_once(request, connection, key)
            answers = [first, await self._join_once(request, connection + 1)]
        result.joined_at = self._now()
        result.item_id = answers[-1].queue_item_id
        self._stands(answers[-1].queue_position, answers[-1].estimated_wait_seconds)
        if answers[-1].queue_position:
            self._set_status(Status.WAITING)
        if answers[0].queue_item_id != result.item_id:
            await self._two_items(answers[0].queue_item_id, result.item_id)

    async def _join_once(
        self, request: pb.EnqueueBookingRequest, connection: int, key: str = ""
    ) -> pb.EnqueueBookingResponse:
        answer = await self._client.join(request, connection, key)
        if answer.queue_item_id not in self.result.acknowledged:
            self.result.acknowledged.append(answer.queue_item_id)
        return answer

    async def _two_items(self, first: str, second: str) -> None:
        """A second item is right if the first was final by then."""
        places = [await self._look(item_id) for item_id in (first, second)]
        live = [place.status not in FINAL for place in places]
        self.result.two_places = all(live)
        self.result.item_id = first if live == [True, False] else second

    # --- in line ------------------------------------------------------------------------------

    async def _look(self, item_id: str) -> pb.GetQueuePositionResponse:
        request = pb.GetQueuePositionRequest(queue_item_id=item_id, user_id=self.result.user_id)
        # While the service is down, thousands who only wait must not be what keeps it down.
        pause = self._pause_in_line() if self.result.status == Status.WAITING else 0.0
        return await self._client.position(request, self._connection, pause)

    def _saw(self, place: pb.GetQueuePositionResponse) -> None:
        result = self.result
        self._stands(place.position, place.estimated_wait_seconds)
        self._set_status(place.status)
        if result.admitted_at is None and (place.status in _ADMITTED or place.booking_id):
            result.admitted_at = self._now()
        if place.booking_id:
            result.booking_id = place.booking_id
        if place.pay_by_unix_ms:
            self._pay_by_ms = place.pay_by_unix_ms

    def _pause_in_line(self) -> float:
        """Seconds until the next poll: often near the head, seldom far from it."""
        habits = self._habits
        pause = min(
            habits.longest_poll_seconds,
            max(habits.shortest_poll_seconds, self._wait_seconds / _POLLS_OF_A_WAIT),
        )
        everybodys = self._everybodys_pause() * min(1.0, self._wait_seconds / _LONG_WAIT_SECONDS)
        return max(pause, everybodys) * (0.75 + self._rng.random() / 2)

    def _stands(self, position: int, wait_seconds: int) -> None:
        known = wait_seconds >= 0
        self._wait_seconds = wait_seconds if known else position / _POSITIONS_A_SECOND

    # --- at the till --------------------------------------------------------------------------

    async def _at_the_till(self) -> None:
        behaviour = self.result.behaviour
        remaining = max(0.0, self._pay_by_ms / 1000 - time.time())
        if behaviour is Behaviour.CANCEL:
            await self._try_cancel()
            await asyncio.sleep(self._habits.shortest_poll_seconds)
        elif behaviour is Behaviour.DONT_PAY or self._payments >= _MOST_PAYMENTS:
            # Nothing happens before the hold ends.
            await asyncio.sleep(max(self._habits.shortest_poll_seconds, min(remaining, 60.0)))
        elif behaviour is Behaviour.PAY_LATE:
            await asyncio.sleep(remaining + self._rng.random())
            await self._try_to_pay()
        else:
            await asyncio.sleep(min(self._habits.think_seconds, remaining / 2) * self._luck)
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
