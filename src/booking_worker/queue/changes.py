"""The feed of status changes: what happened, to every event, in order, at least once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from booking_worker.domain.model import Change
from booking_worker.queue import keys, records

_BLOCK_MS: Final = 250
_ENTRIES_PER_READ: Final = 200
_LOOK_SECONDS: Final = 1.0
_SAVE_SECONDS: Final = 0.5
_KEEP_MS: Final = 10_000
_GATHER_SECONDS: Final = 0.03
_PAUSE_SECONDS: Final = 0.2
_START: Final = "0-0"


class ChangeFeed:
    """Follows the changes of all events and hands them to ``on_changes``, in batches.

    Where it has got to is kept in the engine, every half second: after a crash the last batches
    come again, with the same change ids. A batch whose handler raises comes again too, until
    the handler takes it. What has been taken, and is older than ten seconds, is cut off the
    streams; ``on_gap`` hears of an event of which changes were cut off unread, because nobody
    followed for so long that the cap of the stream was reached.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        on_changes: Callable[[Sequence[Change]], Awaitable[None]],
        on_gap: Callable[[str], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._client = client
        self._on_changes = on_changes
        self._on_gap = on_gap
        self._on_error = on_error
        self._cursors: dict[str, str] = {}
        self._saved: dict[str, str] = {}
        self._looked_at = -_LOOK_SECONDS
        self._saved_at = 0.0
        self._following: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to follow, in the background."""
        if self._following is None:
            self._stopping = False
            self._following = asyncio.create_task(self._follow_for_ever())

    async def stop(self) -> None:
        """Hand over what has happened so far, and remember where it got to."""
        following, self._following = self._following, None
        if following is not None:
            self._stopping = True
            await following

    def wake(self, event_id: str) -> None:
        """Something happened, maybe to an event that is not followed yet: look soon."""
        if event_id not in self._cursors:
            self._looked_at = -_LOOK_SECONDS

    async def _follow_for_ever(self) -> None:
        while True:
            # Before the look: what happens until the stop is in a look that began after it.
            was_stopping = self._stopping
            try:
                busy = await self.run_once()
            except Exception as error:  # noqa: BLE001 - a handler's too: told, and tried again
                self._on_error(error)
                if self._stopping:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if not busy and was_stopping:
                return
            if busy and not self._stopping:
                # What happens meanwhile comes in one read: a read costs as much as fifty changes.
                await asyncio.sleep(_GATHER_SECONDS)

    async def run_once(self) -> bool:
        """Hand over what has happened since; whether anything had. Waits a little for it."""
        now = time.monotonic()
        if self._stopping or now - self._looked_at >= _LOOK_SECONDS:
            await self._look_for_events()
            self._looked_at = now
        changes, cursors = await self._read()
        if changes:
            await self._on_changes(changes)
            self._cursors |= cursors
        if self._stopping or now - self._saved_at >= _SAVE_SECONDS:
            await self._save()
            self._saved_at = now
        return bool(changes)

    async def _look_for_events(self) -> None:
        names: list[Any] = await self._client.zrange(keys.EVENTS, 0, -1)
        events = [name.decode() for name in names]
        self._forget(self._cursors.keys() - events)
        for event_id in events:
            if event_id in self._cursors:
                continue
            cursor: Any = await self._client.hget(keys.of_event(event_id)["state"], "cursor")
            start = cursor.decode() if cursor else _START
            await self._check_for_gap(event_id, start)
            self._cursors[event_id] = self._saved[event_id] = start

    def _forget(self, over: AbstractSet[str]) -> None:
        """Follow these no more; they are found again by where they were read to last."""
        for event_id in over:
            if self._saved[event_id] == self._cursors[event_id]:
                del self._cursors[event_id], self._saved[event_id]

    async def _check_for_gap(self, event_id: str, cursor: str) -> None:
        try:
            info: Any = await self._client.xinfo_stream(keys.of_event(event_id)["changes"])
        except ResponseError:
            return  # nothing has ever happened to it
        if cursor == _START:
            cut_off = info.get("entries-added", 0) > info["length"]
        else:
            # _save leaves the entry at the cursor where it is: only the cap takes it away.
            first = info["first-entry"]
            cut_off = first is None or _order(first[0].decode()) > _order(cursor)
        if cut_off:
            self._on_gap(event_id)

    async def _read(self) -> tuple[list[Change], dict[str, str]]:
        if not self._cursors:
            await asyncio.sleep(_BLOCK_MS / 1000)
            return [], {}
        streams: dict[Any, Any] = {
            keys.of_event(event_id)["changes"]: cursor for event_id, cursor in self._cursors.items()
        }
        read: Any = await self._client.xread(
            streams, count=_ENTRIES_PER_READ, block=1 if self._stopping else _BLOCK_MS
        )
        changes: list[Change] = []
        cursors: dict[str, str] = {}
        for stream, entries in read.items() if isinstance(read, dict) else read or ():
            event_id = _event_of_stream(stream.decode())
            for entry_id, fields in entries[0] if isinstance(read, dict) else entries:
                changes += records.changes(event_id, entry_id.decode(), fields)
                cursors[event_id] = entry_id.decode()
        return changes, cursors

    async def _save(self) -> None:
        for event_id, cursor in self._cursors.items():
            if self._saved[event_id] == cursor:
                continue
            named = keys.of_event(event_id)
            await self._client.hset(named["state"], "cursor", cursor)
            oldest_kept = f"{max(0, _order(cursor)[0] - _KEEP_MS)}-0"
            await self._client.xtrim(named["changes"], minid=oldest_kept, approximate=True)
            self._saved[event_id] = cursor


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, number = entry_id.split("-")
    return int(milliseconds), int(number)


def _event_of_stream(stream: str) -> str:
    return stream[stream.index("{") + 1 : stream.rindex("}")]
