"""The queue: one method for each transition, each transition one Lua script.

What a method does is atomic in the engine; what it needs to know of time is the engine's clock.
"""

from __future__ import annotations

from booking_worker.queue.desk import Desk, Look, Mended, TakenOver
from booking_worker.queue.layout import Layouts
from booking_worker.queue.line import Line
from booking_worker.queue.transitions import QueueLimits
from booking_worker.queue.work import CapacityQuestion, Claimed, Expired, Work

__all__ = [
    "BookingQueue",
    "CapacityQuestion",
    "Claimed",
    "Expired",
    "Look",
    "Mended",
    "QueueLimits",
    "TakenOver",
]


class BookingQueue(Line, Work, Desk, Layouts):
    """The line of every event, the work on it, and the desk of its operators."""
