"""The names of all keys in the engine, once.

``{E}`` is the event id in literal braces: all keys of an event live in one Cluster slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

EVENTS: Final = "booking-events"
"""sorted set: event id -> when it was listed last, seconds on the engine's clock. An event that is
over leaves it; its books stay."""
WORKERS: Final = "booking-workers"
"""hash: worker id -> its slots and until when they count, ms."""
LAYOUT: Final = "booking-layout"
"""hash: version and id of the layout of all keys, and why nobody is admitted to any event."""
SWEEP_LOCK: Final = "booking-lock-sweep"
"""string: the lock of whose turn it is to sweep the events that are over."""
WAKE_CHANNEL: Final = "booking-wake"
"""Pub/sub channel: the id of an event of which something can be claimed. wake.lua agrees."""
REFRESH_CHANNEL: Final = "booking-refresh"
"""Pub/sub channel: the id of an event whose capacity is to be refreshed by who looks after it."""
FREE_CHANNEL: Final = "booking-free"
"""Pub/sub channel: ids of events, a line each, that nobody looks after any more."""

_EVENT_KEYS: Final = {
    "queue": "booking-queue:{%s}",
    "positions": "booking-queue-positions:{%s}",
    "gaps": "booking-gaps:{%s}",
    "timeouts": "booking-timeouts:{%s}",
    "items": "booking-items:{%s}",
    "users": "booking-users:{%s}",
    "state": "booking-state:{%s}",
    "tasks": "booking-tasks:{%s}",
    "admitted": "booking-admitted:{%s}",
    "dead": "booking-dead-letters:{%s}",
    "changes": "booking-changes:{%s}",
    "lock": "booking-lock:{%s}",
    "results": "booking-result:{%s}:",
    "requests": "booking-request:{%s}:",
}


@lru_cache(maxsize=4096)
def of_event(event_id: str) -> Mapping[str, str]:
    """The keys (and key prefixes) of one event, by the names that the Lua files use.

    The empty id stands for all events where something is said of all of them.
    """
    named = {name: template % event_id for name, template in _EVENT_KEYS.items()}
    named |= {"workers": WORKERS, "events": EVENTS, "layout": LAYOUT}
    named["gate"] = named["state"] if event_id else LAYOUT
    return named
