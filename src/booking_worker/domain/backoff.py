"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable
from random import random


def full_jitter(
    attempt: int, base_seconds: float, cap_seconds: float, rand: Callable[[], float] = random
) -> float:
    """Seconds to wait after the given number of failed attempts (1 is the first).

    Exponential backoff with full jitter: uniform in ``[0, min(cap, base * 2^(attempt-1))]``,
    so that those who failed together do not come back together. Source: Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    ceiling = min(cap_seconds, base_seconds * 2.0 ** min(attempt - 1, 62))
    return rand() * ceiling
