"""Item ids: 72 random bits and the event that they belong to, safe in a URL.

``RANDOM.EVENT``; an event id of other characters than letters, digits, ``_`` and ``-``
is written as ``~`` and its base64url, so that an id needs no escaping anywhere.
"""

from __future__ import annotations

import base64
import os
import re
from functools import lru_cache

from booking_worker.domain.errors import ItemNotFound

_RANDOM_BYTES = 9  # 12 characters of base64url, no padding
_POOL_IDS = 256
_PLAIN_EVENT = re.compile(r"[A-Za-z0-9_-]+")
_ITEM_ID = re.compile(r"[A-Za-z0-9_-]{12}\.(?:[A-Za-z0-9_-]{1,128}|~[A-Za-z0-9_-]{1,700})")

_MAX_LENGTH = 128

_pool: list[str] = []


def new_item_id(event_id: str) -> str:
    """A fresh id for an item of this event."""
    if not _pool:
        # One system call for many ids: a join is a hot path.
        text = base64.urlsafe_b64encode(os.urandom(_RANDOM_BYTES * _POOL_IDS)).decode()
        # None begins with a dash: an operator's shell hands ids to commands, as arguments.
        starts = (at for at in range(0, len(text), 12) if text[at] != "-")
        _pool.extend(text[at : at + 12] for at in starts)
    return f"{_pool.pop()}.{_event_part(event_id)}"


@lru_cache(maxsize=4096)
def _event_part(event_id: str) -> str:
    if _PLAIN_EVENT.fullmatch(event_id):
        return event_id
    return "~" + base64.urlsafe_b64encode(event_id.encode()).decode().rstrip("=")


def event_of(item_id: str) -> str:
    """The event that an item id belongs to.

    Raises:
        ItemNotFound: the text was never an item id.
    """
    if not _ITEM_ID.fullmatch(item_id):
        raise ItemNotFound(item_id[:200])
    part = item_id[13:]
    if part[0] != "~":
        return part
    encoded = part[1:]
    try:
        event_id = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        raise ItemNotFound(item_id) from None
    if _event_part(event_id) != part or not is_plain_id(event_id):
        raise ItemNotFound(item_id)
    return event_id


def is_plain_id(text: str) -> bool:
    """Whether a text may be an event or user id: 1-128 printable characters, no brace or space."""
    # isprintable() refuses control characters, surrogates and all white space but the space.
    return (
        0 < len(text) <= _MAX_LENGTH
        and text.isprintable()
        and not (" " in text or "{" in text or "}" in text)
    )
