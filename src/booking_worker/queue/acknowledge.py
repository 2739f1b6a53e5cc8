"""What has to have a write before it is acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_TIMEOUT_MS: Final = 800
"""Twice as long, for scripts that had to be sent again, fits into the 2 s of a call."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """So many replicas must have it, and with ``aof`` in their append-only files, synced.

    With ``aof`` the engine's own file must have it too. By default nothing is waited for.
    """

    replicas: int = 0
    aof: bool = False

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for."""
        return self.aof or self.replicas > 0

    @property
    def commands(self) -> Sequence[tuple[str | int, ...]]:
        """What to send behind the writes, on their connection; the last one's answer counts.

        Replicas say once a second what they have on disk, but at once when WAIT asks them.
        """
        if not self.aof:
            return [("WAIT", self.replicas, _TIMEOUT_MS)]
        if not self.replicas:
            return [("WAITAOF", 1, 0, _TIMEOUT_MS)]
        half = _TIMEOUT_MS // 2
        return [("WAIT", self.replicas, half), ("WAITAOF", 1, self.replicas, half)]

    def shortfall(self, answer: Any) -> str | None:
        """What is missing by the last command's answer, maybe an error; None if nothing is."""
        if isinstance(answer, Exception):
            return f"whether it is kept safely is unknown: {answer}"
        local, replicas = answer if self.aof else (1, answer)
        if self.aof and local < 1:
            return "its append-only file does not have it in time"
        if replicas < self.replicas:
            return f"{replicas} replicas have it in time, {self.replicas} must"
        return None
