"""What may be claimed, as the breakers of the peers have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from booking_worker.domain.model import Lease, Task
from booking_worker.peers.breaker import Breaker, BreakerState

ALL_TASKS: Final = frozenset(Task)
_WITHOUT_TICKETS: Final = frozenset({Task.RESERVE, Task.CONFIRM})
_NOTHING: Final[frozenset[Task]] = frozenset()
_MOST_TRIED: Final = 4


class Allowed(NamedTuple):
    """Which tasks may be claimed now."""

    tasks: frozenset[Task]
    is_trial: bool
    """Whether only one of them may be run, to see whether the peer is back."""


class Gate:
    """Lets nothing be claimed that needs a peer whose breaker is open.

    Every task needs the Booking Service. Only a release needs the Ticket Service; whether that
    is back is found out by refreshing capacity, so no release is ever its trial. ``ticket`` is
    None where there is no Ticket Service.
    """

    def __init__(self, booking: Breaker, ticket: Breaker | None) -> None:
        self._booking = booking
        self._ticket = ticket
        self._tried: set[str] = set()

    @property
    def waits_for(self) -> str:
        """The peer without which nothing can be claimed now; empty when there is none."""
        return "" if self._booking.state is BreakerState.CLOSED else self._booking.name

    @property
    def seconds_until_trial(self) -> float:
        """Seconds until the Booking Service may be tried again; 0 unless its breaker is open."""
        return self._booking.seconds_until_trial

    def allowed(self) -> Allowed:
        """What may be claimed at this moment."""
        tasks = ALL_TASKS
        if self._ticket is not None and self._ticket.state is not BreakerState.CLOSED:
            tasks = _WITHOUT_TICKETS
        if self._booking.state is BreakerState.CLOSED:
            self._tried.clear()
            return Allowed(tasks, is_trial=False)
        if self._booking.allows:
            return Allowed(tasks, is_trial=True)
        return Allowed(_NOTHING, is_trial=False)

    @property
    def wanted_for_trial(self) -> int:
        """How many leases to choose the next trial from: one that was not tried yet is wanted.

        An item that the Booking Service always fails on must not be the trial for ever, or the
        breaker would never close.
        """
        return 1 + len(self._tried)

    def choose_trial(self, leases: Sequence[Lease]) -> Lease:
        """The lease to run as the trial; the others are to be handed back."""
        untried = [lease for lease in leases if lease.item_id not in self._tried]
        chosen = (untried or leases)[0]
        if not untried or len(self._tried) >= _MOST_TRIED:
            self._tried.clear()
        self._tried.add(chosen.item_id)
        return chosen
