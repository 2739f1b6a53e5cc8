"""What has to have a write before it is acknowledged."""

from __future__ import annotations

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
    def command(self) -> tuple[str | int, ...]:
        """What to send behind the writes, on their connection: it waits for all before it."""
        if self.aof:
            return ("WAITAOF", 1, self.replicas, _TIMEOUT_MS)
        return ("WAIT", self.replicas, _TIMEOUT_MS)

    def shortfall(self, answer: Any) -> str | None:
        """What is missing by the command's answer, which may be an error; None if nothing is."""
        if isinstance(answer, Exception):
            return f"whether it is kept safely is unknown: {answer}"
        local, replicas = answer if self.aof else (1, answer)
        if self.aof and local < 1:
            return "its append-only file does not have it in time"
        if replicas < self.replicas:
            return f"{replicas} replicas have it in time, {self.replicas} must"
        return None
