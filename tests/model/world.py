"""What is really sold: the tickets and bookings of the services that own them."""

from __future__ import annotations

from booking_worker.domain.model import Task
from tests.model.reference_item import Leased

ANY_TASK = ("extend", "hand_back", "retry", "wait")
OF_TASK = {
    Task.RESERVE: ("held", "rejected", "short"),
    Task.CONFIRM: ("confirmed", "unconfirmed", "gone"),
    Task.RELEASE: ("released", "paid", "paying", "gone"),
}


class World:
    """One event's tickets. Every call may be repeated, and may be made without being heard."""

    def __init__(self, tickets: int) -> None:
        self.tickets = tickets
        self.booked: dict[str, int] = {}
        self.confirmed: set[str] = set()
        self.ran_out: set[str] = set()

    @property
    def left(self) -> int:
        """What CheckAvailability says when it is honest."""
        return self.tickets - sum(self.booked.values())

    def call(self, lease: Leased, seats: int) -> bool:
        """The call of a task; whether it took effect."""
        item_id = lease.item_id
        if lease.task is Task.RESERVE:
            if item_id not in self.booked and seats <= self.left:
                self.booked[item_id] = seats
        elif item_id in self.confirmed:
            pass
        elif lease.task is Task.RELEASE:
            self.booked.pop(item_id, None)
        elif item_id in self.booked:
            self.confirmed.add(item_id)
        return item_id in self.booked

    def run_out(self, item_id: str) -> None:
        """The Booking Service ends a booking by itself."""
        if item_id not in self.confirmed and self.booked.pop(item_id, None):
            self.ran_out.add(item_id)

    def pay_directly(self, item_id: str) -> None:
        """The payment service confirms a booking past the queue."""
        if item_id in self.booked:
            self.confirmed.add(item_id)

    def answers(self, task: Task, item_id: str) -> list[str]:
        """What an honest worker may say of a task, by what the services tell it."""
        booked, confirmed = item_id in self.booked, item_id in self.confirmed
        if task is Task.RESERVE:
            return ["held"] if booked else ["rejected", "short"]
        if task is Task.CONFIRM:
            return ["confirmed"] if confirmed else ["unconfirmed"] if booked else ["gone"]
        if confirmed:
            return ["paid"]
        if booked:
            return ["paying"]
        return ["gone"] if item_id in self.ran_out else ["released", "gone"]
