"""The life that everything that runs has: run, ready, stop."""

from __future__ import annotations

from typing import Protocol


class Part(Protocol):
    """Something that app.py starts, waits for, and stops in the opposite order.

    ``start`` returns once the part is ready for use, or raises why it can't be. ``stop`` ends
    it and returns once nothing of it is left running; stopping twice, or before start, is
    stopping.
    """

    async def start(self) -> None:
        """Begin; return when ready."""

    async def stop(self) -> None:
        """End; return when nothing is left running. May be called again."""
