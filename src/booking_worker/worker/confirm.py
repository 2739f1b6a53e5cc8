"""The task that turns a paid booking into a confirmed one."""

from __future__ import annotations

from booking_worker.domain.errors import PeerBreakerOpen, PeerRefused, PeerUnavailable
from booking_worker.peers.booking import BookingClient, BookingFate
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.worker.assignment import Assignment, Outcome
from booking_worker.worker.setbacks import Setbacks


class Confirm:
    """Confirms the booking of one item; confirming it again finds it confirmed."""

    def __init__(self, queue: BookingQueue, booking: BookingClient, setbacks: Setbacks) -> None:
        self._queue = queue
        self._booking = booking
        self._setbacks = setbacks

    async def run(self, work: Assignment) -> Outcome:
        """Ask the Booking Service, and settle what it says. Raises Fenced."""
        lease = work.lease
        try:
            try:
                work.asked = True
                reference = await self._booking.confirm(lease.booking_id, lease.payment_reference)
            except PeerRefused as refusal:
                return await self._refused(work, refusal.message)
        except (PeerUnavailable, PeerBreakerOpen) as error:
            return await self._setbacks.again(work, error, self._booking.breaker)
        await work.settle(lambda: self._queue.settle_confirmed(lease, reference))
        return Outcome.CONFIRMED

    async def _refused(self, work: Assignment, message: str) -> Outcome:
        """Settle a refusal by what the booking is now: money and ticket never part."""
        lease = work.lease
        await work.extend()
        try:
            state = await self._booking.get(lease.booking_id)
        except PeerRefused as refusal:
            return await self._setbacks.retry(work, str(refusal))
        if state.status is BookingFate.CONFIRMED:
            await work.settle(lambda: self._queue.settle_confirmed(lease, state.booking_reference))
            return Outcome.CONFIRMED
        if state.status is BookingFate.GONE:
            await work.settle(lambda: self._queue.settle_gone(lease, message))
            return Outcome.GONE
        await work.settle(lambda: self._queue.settle_unconfirmed(lease, message))
        return Outcome.UNCONFIRMED
