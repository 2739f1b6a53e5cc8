"""How long the wait will be, from what was measured and from nothing else."""

from __future__ import annotations

import math

from booking_worker.domain.model import Rate

RATE_WINDOW_MS = 30_000
"""Time constant of the moving average of the admission rate. lua/includes/rate.lua agrees."""

_MAX_WAIT_SECONDS = 2**31 - 1


def per_second(rate: Rate, now_ms: int) -> float:
    """Admissions per second: an exponentially decaying count over its decaying window.

    The count is corrected for a window that has only just begun, so that the first seconds
    of a sale are not understated; a rate that nothing feeds any more fades to 0.
    """
    if rate.since_ms <= 0:
        return 0.0
    weight = rate.weight * math.exp(-max(0, now_ms - rate.at_ms) / RATE_WINDOW_MS)
    # Never less than a second, or one admission at once would look like thousands a second.
    age_ms = max(1_000, now_ms - rate.since_ms)
    window_seconds = RATE_WINDOW_MS / 1000 * (1.0 - math.exp(-age_ms / RATE_WINDOW_MS))
    return weight / window_seconds


def wait_seconds(position: int, admissions_per_second: float) -> int:
    """Whole seconds until the item at this position is admitted.

    0 for who is admitted already; -1 while nothing has been measured lately (fewer than one
    admission in a hundred seconds), as any number would be made up.
    """
    if position <= 0:
        return 0
    if admissions_per_second < 0.01:  # noqa: PLR2004 - said in the docstring
        return -1
    return min(_MAX_WAIT_SECONDS, math.ceil(position / admissions_per_second))
