"""The task that takes an item from the line to a booking that is held for it."""

from __future__ import annotations

from booking_worker.domain import details
from booking_worker.domain.errors import (
    PeerBreakerOpen,
    PeerError,
    PeerRefused,
    PeerUnavailable,
)
from booking_worker.peers.booking import BookingClient
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.worker.assignment import Assignment, Outcome
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.recall import Recall
from booking_worker.worker.setbacks import Setbacks


class Reserve:
    """Makes the booking of one item; making it again finds the same one."""

    def __init__(
        self,
        queue: BookingQueue,
        booking: BookingClient,
        capacity: CapacityKeeper,
        setbacks: Setbacks,
        recall: Recall,
    ) -> None:
        self._queue = queue
        self._booking = booking
        self._capacity = capacity
        self._setbacks = setbacks
        self._recall = recall

    async def run(self, work: Assignment) -> Outcome:
        """Ask the Booking Service, and settle what it says. Raises Fenced."""
        lease = work.lease
        request = details.unpack(lease.event_id, lease.user_id, lease.seats, lease.details)
        asked_before, work.asked = work.asked, True
        try:
            held = await self._booking.create(request, lease.item_id)
        except PeerRefused as refusal:
            return await self._weigh(work, refusal)
        except PeerBreakerOpen as error:
            work.asked = asked_before
            return await self._setbacks.again(work, error, self._booking.breaker)
        except PeerUnavailable as error:
            return await self._setbacks.again(work, error, self._booking.breaker)
        self._recall.booked(lease)
        await work.settle(lambda: self._queue.settle_held(lease, held))
        return Outcome.HELD

    async def _weigh(self, work: Assignment, refusal: PeerRefused) -> Outcome:
        """Whether the refusal is final: not when the tickets ran out, as that is nobody's choice.

        Without a Ticket Service it is.
        """
        lease = work.lease
        judge = self._capacity.judge
        if judge is not None:
            await work.extend()
            try:
                left = await work.insist(lambda: self._capacity.left(lease.event_id))
            except PeerError as error:
                return await self._setbacks.later(work, error, judge)
            if left is not None and left < lease.seats:
                await work.settle(lambda: self._queue.settle_short(lease, refusal.message))
                self._capacity.want(lease.event_id)
                return Outcome.SHORT
        await work.settle(lambda: self._queue.settle_rejected(lease, refusal.message))
        return Outcome.REJECTED
