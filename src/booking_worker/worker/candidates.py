"""The events that may have work, in the order of their turns."""

from __future__ import annotations

from typing import Final

_MOST_PER_TRIP: Final = 100


class Candidates:
    """Events of which something may be claimed, served in turns with a fair share each."""

    def __init__(self) -> None:
        self._turns: dict[str, None] = {}
        self._blocked: set[str] = set()

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._turns

    def add(self, event_id: str) -> None:
        """Something of this event may be claimed; it keeps its turn if it has one."""
        self._turns[event_id] = None

    def add_blocked(self) -> None:
        """All events in which somebody waited in vain get a turn."""
        for event_id in self._blocked:
            self.add(event_id)

    def add_if_blocked(self, event_id: str) -> None:
        """A task of this event has ended: that may be what somebody there waited for."""
        if event_id in self._blocked:
            self.add(event_id)

    def take(self, slots: int) -> tuple[list[str], int]:
        """The events whose turn it is, and how many tasks may be claimed of each.

        Together they are at most ``slots``. The events taken are candidates no more, until they
        are added again or :meth:`answered` finds that there was more to claim.
        """
        if not self._turns or slots <= 0:
            return [], 0
        share = max(1, slots // len(self._turns))
        number = min(len(self._turns), slots // share, _MOST_PER_TRIP)
        taken = [event_id for event_id, _ in zip(self._turns, range(number), strict=False)]
        for event_id in taken:
            del self._turns[event_id]
        return taken, share

    def answered(self, event_id: str, *, is_full: bool, is_blocked: bool) -> None:
        """What a claim found: as many tasks as were asked for, or somebody who must wait."""
        if is_full:
            self.add(event_id)
        if is_blocked:
            self._blocked.add(event_id)
        else:
            self._blocked.discard(event_id)
