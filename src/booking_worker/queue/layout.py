"""The layout of the keys: its version, whose data these are, and whether anybody is admitted.

The record is in a slot of its own, so no script that admits sees it: each replica reads it once a
second, and before it opens the books of an event under an engine that it has not met.
"""

from __future__ import annotations

import secrets
from typing import Final

from booking_worker.domain.errors import LayoutTooNew
from booking_worker.domain.model import Layout
from booking_worker.queue.transitions import Transitions

VERSION: Final = 1
"""Of the keys that this code makes. A higher one means keys that it can't read."""
LOST: Final = "the engine lost its data: see docs/upgrade.md, then `booking-worker queue resume`"
LOST_EVENT: Final = (
    "the engine lost this event's data: see docs/upgrade.md, then `booking-worker queue resume`"
)


class Layouts(Transitions):
    """The record of the layout, and the gates that operators close and open."""

    async def read_layout(self) -> Layout:
        """The record as it is now; a fresh engine gets one, and one without its data says so.

        What it says of admission holds for this replica's claims from now on.

        Raises:
            LayoutTooNew: the keys are of a later version of the service.
            EngineUnavailable.
        """
        known = self.layout.id if self.layout else ""
        answer = await self._run(
            "read_layout", "", version=VERSION, known_id=known, new_id=secrets.token_hex(8),
            lost=LOST,
        )  # fmt: skip
        version, layout_id, created_at_ms, why, by, at_ms = answer
        if version > VERSION:
            raise LayoutTooNew(version, VERSION)
        self.layout = Layout(
            version, layout_id.decode(), created_at_ms, why.decode(), by.decode(), at_ms
        )
        return self.layout

    async def pause(self, event_id: str, reason: str, actor: str) -> str:
        """Admit nobody to an event, or to any when ``event_id`` is empty; all else goes on.

        Of one event it holds at once, of all as soon as each replica has read the record. Answers
        why nobody was admitted before; empty when they were. Raises EngineUnavailable.
        """
        before: bytes = await self._run("pause", event_id, reason=reason, actor=actor)
        if not event_id:
            await self.read_layout()
        return before.decode()

    async def resume(self, event_id: str) -> str:
        """Admit again, to an event or to all that are not paused by themselves.

        Answers why nobody was admitted; empty when they were. Raises EngineUnavailable.
        """
        before: bytes = await self._run("resume", event_id)
        if not event_id:
            await self.read_layout()
        return before.decode()
