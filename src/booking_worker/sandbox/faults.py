"""What goes wrong in a stand-in service, as often as it was told to."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple


class Fault(StrEnum):
    """What happens to one call."""

    NONE = "none"
    ERROR = "error"
    """UNAVAILABLE, and nothing is done."""
    LOST = "lost"
    """Done and saved; the answer is UNAVAILABLE."""
    HANG = "hang"
    """Done and saved; no answer comes."""


class Draw(NamedTuple):
    """One call's share of the faults."""

    fault: Fault
    delay_seconds: float

    @property
    def answer_is_lost(self) -> bool:
        """Whether the call is done but its caller does not hear of it."""
        return self.fault in _LOST


_LOST: Final = frozenset({Fault.LOST, Fault.HANG})
_NOTHING: Final = Draw(Fault.NONE, 0.0)


@dataclass
class Faults:
    """The faults of one stand-in service. Each may be changed while it runs.

    Rates and shares are between 0 and 1. The same seed gives the same faults to the same calls.
    """

    latency_ms: float = 0.0
    """Mean time that a call takes; each takes between half and one and a half of it."""
    error_rate: float = 0.0
    """How often a call is UNAVAILABLE before anything is done."""
    lost_answer_rate: float = 0.0
    """How often a call is done and saved, and its caller never hears of it."""
    hang_share: float = 0.5
    """How many of the lost answers never come; the others are UNAVAILABLE."""
    overstate: int = 0
    """CheckAvailability says that many more than there are."""
    refuse: bool = False
    """CreateBooking refuses everything with FAILED_PRECONDITION."""
    malformed: bool = False
    """Answers say success and carry nothing."""
    down: bool = False
    """Every call is UNAVAILABLE at once."""
    seed: int = 0
    _rng: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def draw(self) -> Draw:
        """What happens to the next call."""
        if self.down:
            return Draw(Fault.ERROR, 0.0)
        if not (self.latency_ms or self.error_rate or self.lost_answer_rate):
            return _NOTHING
        chance = self._rng.random
        delay = self.latency_ms / 1000 * (0.5 + chance())
        luck = chance()
        if luck < self.error_rate:
            return Draw(Fault.ERROR, delay)
        if luck < self.error_rate + self.lost_answer_rate:
            return Draw(Fault.HANG if chance() < self.hang_share else Fault.LOST, delay)
        return Draw(Fault.NONE, delay)

    def copy_for(self, service: str) -> Faults:
        """The same faults for another service, falling on other calls."""
        seed = random.Random(f"{self.seed}/{service}").getrandbits(32)
        return Faults(
            latency_ms=self.latency_ms,
            error_rate=self.error_rate,
            lost_answer_rate=self.lost_answer_rate,
            hang_share=self.hang_share,
            overstate=self.overstate,
            refuse=self.refuse,
            malformed=self.malformed,
            down=self.down,
            seed=seed,
        )

    def become(self, other: Faults) -> None:
        """Take over the other's rates and switches; its own luck goes on."""
        self.latency_ms = other.latency_ms
        self.error_rate = other.error_rate
        self.lost_answer_rate = other.lost_answer_rate
        self.hang_share = other.hang_share
        self.overstate = other.overstate
        self.refuse = other.refuse
        self.malformed = other.malformed
        self.down = other.down
