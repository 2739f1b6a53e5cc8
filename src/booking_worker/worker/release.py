"""The task that gives back what an item held: not paid in time, or cancelled."""

from __future__ import annotations

from booking_worker.domain.errors import PeerBreakerOpen, PeerRefused, PeerUnavailable
from booking_worker.domain.model import Lease
from booking_worker.peers.booking import BookingClient, BookingFate, BookingState
from booking_worker.peers.ticket import TicketClient
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.logs import get_logger
from booking_worker.worker.assignment import Assignment, Outcome
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.setbacks import Setbacks

_log = get_logger(__name__)


class Release:
    """Cancels the booking of one item, unless it is paid or being paid; again is the same."""

    def __init__(
        self,
        queue: BookingQueue,
        booking: BookingClient,
        ticket: TicketClient | None,
        capacity: CapacityKeeper,
        setbacks: Setbacks,
    ) -> None:
        self._queue = queue
        self._booking = booking
        self._ticket = ticket
        self._capacity = capacity
        self._setbacks = setbacks

    async def run(self, work: Assignment) -> Outcome:
        """Look, cancel, give the tickets back, and settle what came of it. Raises Fenced."""
        lease = work.lease
        work.asked = True
        try:
            state, cancelled = await self._cancel_unless_paid(work)
        except (PeerUnavailable, PeerBreakerOpen) as error:
            return await self._setbacks.again(work, error, self._booking.breaker)
        except PeerRefused as refusal:
            return await self._setbacks.retry(work, str(refusal))
        if cancelled or state.status is BookingFate.GONE:
            return await self._give_back(work, where_is_known=cancelled)
        if state.status is BookingFate.CONFIRMED:
            await work.settle(lambda: self._queue.settle_paid(lease, state.booking_reference))
            return Outcome.PAID
        await work.settle(lambda: self._queue.settle_paying(lease))
        return Outcome.PAYING

    async def _cancel_unless_paid(self, work: Assignment) -> tuple[BookingState, bool]:
        """The booking as it was found last, and whether it was cancelled then.

        Raises PeerRefused when it ought to be cancelled but can't be now.
        """
        lease = work.lease
        state = await self._booking.get(lease.booking_id)
        if not _is_to_be_cancelled(state, lease):
            return state, False
        await work.extend()
        try:
            await self._booking.cancel(lease.booking_id, lease.reason)
        except PeerRefused:
            # Something happened to it since it was looked at.
            await work.extend()
            state = await self._booking.get(lease.booking_id)
            if _is_to_be_cancelled(state, lease):
                raise
            return state, False
        return state, True

    async def _give_back(self, work: Assignment, *, where_is_known: bool) -> Outcome:
        """Give back the tickets of the booking, which is gone, and settle.

        ``where_is_known`` says that the seats can be admitted again at once. For a booking that
        was gone before only a refresh of capacity knows.
        """
        lease = work.lease
        if self._ticket is not None and lease.reservation_id:
            await work.extend()
            try:
                await self._ticket.release(lease.reservation_id)
            except PeerRefused as refusal:
                _log.warning(
                    "the tickets of a cancelled booking were not taken back",
                    item_id=lease.item_id,
                    event_id=lease.event_id,
                    reservation_id=lease.reservation_id,
                    why=refusal.message,
                )
                where_is_known = False
            except (PeerUnavailable, PeerBreakerOpen) as error:
                # Releases are left alone until the Ticket Service answers: let it be asked.
                self._capacity.want(lease.event_id)
                return await self._setbacks.again(work, error, self._ticket.breaker)
        if where_is_known:
            await work.settle(lambda: self._queue.settle_released(lease))
            return Outcome.RELEASED
        await work.settle(lambda: self._queue.settle_gone(lease, lease.reason))
        self._capacity.want(lease.event_id)
        return Outcome.GONE


def _is_to_be_cancelled(state: BookingState, lease: Lease) -> bool:
    """Not what is paid for or gone; nor, for once, what is being paid."""
    if state.status is BookingFate.PAYING:
        return lease.grace_used
    return state.status is BookingFate.OPEN
