"""Keeping the suspects apart: tasks over which two workers were lost are worked on alone."""

from __future__ import annotations

from booking_worker.domain.model import Lease


class Suspects:
    """The events that have suspects, as far as was heard, and the one suspect in hand.

    From when one is heard of until nothing is in hand, nothing may be claimed; nor while one is
    worked on. After each there is to be one claim as usual, so that those who were lost beside
    the one that kills don't keep the line waiting.
    """

    def __init__(self) -> None:
        self._events: dict[str, None] = {}
        self._in_hand: Lease | None = None

    def __len__(self) -> int:
        return len(self._events)

    def heard_of(self, event_id: str) -> None:
        """There is a suspect in this event."""
        self._events[event_id] = None

    def hold_up(self, in_hand: int) -> bool:
        """Whether nothing may be claimed while so many tasks are in hand."""
        return self._in_hand is not None or (bool(self._events) and in_hand > 0)

    def take(self) -> str:
        """The event to claim a suspect from; of another worker's one must be heard again."""
        event_id = next(iter(self._events))
        del self._events[event_id]
        return event_id

    def taken(self, lease: Lease) -> list[str]:
        """One was claimed; the events that a usual claim must hear of suspects from again."""
        self._in_hand = lease
        others = list(self._events)
        self._events.clear()
        return others

    def ended(self, lease: Lease) -> None:
        """A task has ended; any may be told of."""
        if lease is self._in_hand:
            self._in_hand = None
