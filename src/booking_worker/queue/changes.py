"""The feed of status changes: what happened, to every event, in order, at least once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from booking_worker.domain.model import Change
from booking_worker.queue import keys, records
from booking_worker.queue.booking_queue import BookingQueue

_BLOCK_MS: Final = 250
_POLL_SECONDS: Final = 0.1
_ENTRIES_PER_READ: Final = 100
_CHANGES_AT_ONCE: Final = 1_000
"""An entry has up to a thousand: a whole read in one go would hold up everybody's calls."""
_SAVE_SECONDS: Final = 0.5
_KEEP_MS: Final = 10_000
_GATHER_SECONDS: Final = 0.03
_PAUSE_SECONDS: Final = 0.2
_START: Final = "0-0"

_Entry: TypeAlias = tuple[str, str, Mapping[bytes, bytes]]
"""Event id, entry id, and the fields as records.changes takes them."""


class Hold(NamedTuple):
    """That this replica looks after an event."""

    token: int
    """Fencing token: grows with every holder."""
    cursor: str
    """The last change that people had been told of when it was taken over; may be empty."""
    until: float


class Holds(Protocol):
    """Which events this replica looks after: worker/housekeeping.py."""

    def held(self) -> Mapping[str, Hold]:
        """Those at this moment, by their ids."""

    def listen(self, on_news: Callable[[str], None]) -> None:
        """Have this called with each event that is one of them from now on."""

    def want(self, event_id: str) -> None:
        """Something happens in this event."""

    def overtaken(self, event_id: str) -> None:
        """Another replica has taken this event over."""

    async def hand_over(self) -> bool:
        """Let go of all; True when some had to be taken again, to be told of."""


@dataclass(slots=True)
class _Followed:
    token: int
    cursor: str
    saved: str


class ChangeFeed:
    """Follows the changes of the events that are looked after here; ``on_changes`` gets batches.

    Where it has got to is kept in the engine, every half second: whoever looks after the event
    next goes on from there, so the last batches before a crash come again, with the same change
    ids. A batch whose handler raises comes again too, until the handler takes it. What has been
    taken, and is older than ten seconds, is cut off the streams; ``on_gap`` hears of an event of
    which changes were cut off unread, because nobody followed for so long that the cap of the
    stream was reached.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        queue: BookingQueue,
        holds: Holds,
        *,
        on_changes: Callable[[Sequence[Change]], Awaitable[None]],
        on_gap: Callable[[str], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """``client`` reads the streams, and may be kept waiting by a read that blocks."""
        self._client = client
        self._queue = queue
        self._holds = holds
        self._on_changes = on_changes
        self._on_gap = on_gap
        self._on_error = on_error
        self._followed: dict[str, _Followed] = {}
        self._saved_at = 0.0
        self._news = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._stopping = False
        self._is_behind = False
        """Whether the last read left something in a stream."""
        self.trouble = ""
        """Why nothing is handed over at present; empty when all is well."""
        holds.listen(lambda _: self._news.set())

    async def start(self) -> None:
        """Begin to follow, in the background."""
        if self._following is None:
            self._stopping = False
            self._following = asyncio.create_task(self._follow_for_ever())

    async def stop(self) -> None:
        """Hand over what has happened so far, remember where it got to, and let others go on."""
        following, self._following = self._following, None
        if following is not None:
            self._stopping = True
            self._news.set()
            await following

    async def _follow_for_ever(self) -> None:
        while True:
            # Before the look: what happens until the stop is in a look that began after it.
            was_stopping = self._stopping
            try:
                busy = await self.run_once()
                self.trouble = ""
                if not busy and was_stopping and not await self._holds.hand_over():
                    return
            except Exception as error:  # noqa: BLE001 - a handler's too: told, and tried again
                self.trouble = f"{type(error).__name__}: {error}"
                self._on_error(error)
                if self._stopping:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if busy and not self._stopping and not self._is_behind:
                # What happens meanwhile comes in one read: a read costs as much as fifty changes.
                await asyncio.sleep(_GATHER_SECONDS)

    async def run_once(self) -> bool:
        """Hand over what has happened since; whether anything had. Waits a little for it."""
        now = time.monotonic()
        stuck_at = {name: one.cursor for name, one in self._followed.items() if self.trouble}
        await self._follow(self._holds.held())
        entries = await self._read()
        handed = [await self._hand_over(*portion) for portion in _portions(entries)]
        for event_id, cursor in stuck_at.items():
            # Before the cursor is saved, which cuts off what was told.
            await self._check_for_gap(event_id, cursor)
        if self._stopping or now - self._saved_at >= _SAVE_SECONDS:
            await self._save()
            self._saved_at = now
        return any(handed)

    async def _hand_over(self, changes: Sequence[Change], cursors: Mapping[str, str]) -> bool:
        # Meanwhile another may have taken over what it was too slow to keep.
        held = self._holds.held()
        lost = [name for name in cursors if not self._is_same(name, held.get(name))]
        if lost:
            changes = [change for change in changes if change.event_id not in lost]
        if changes:
            await self._on_changes(changes)
        for event_id in cursors.keys() - lost:
            self._followed[event_id].cursor = cursors[event_id]
            self._holds.want(event_id)
        await asyncio.sleep(0)  # others have their turn, also where a backlog is worked off
        return bool(changes)

    def _is_same(self, event_id: str, hold: Hold | None) -> bool:
        return hold is not None and hold.token == self._followed[event_id].token

    async def _follow(self, held: Mapping[str, Hold]) -> None:
        """Follow these events and no others, each from where its last holder got to."""
        for event_id in self._followed.keys() - held.keys():
            del self._followed[event_id]
        for event_id, hold in held.items():
            followed = self._followed.get(event_id)
            if followed is None or followed.token != hold.token:
                start = hold.cursor or _START
                await self._check_for_gap(event_id, start)
                self._followed[event_id] = _Followed(hold.token, start, start)

    async def _check_for_gap(self, event_id: str, cursor: str) -> None:
        try:
            info: Any = await self._client.xinfo_stream(keys.of_event(event_id)["changes"])
        except ResponseError:
            return  # nothing has ever happened to it
        if cursor == _START:
            cut_off = info.get("entries-added", 0) > info["length"]
        else:
            # save_cursor.lua leaves the entry at the cursor: only the cap takes it away.
            first = info["first-entry"]
            cut_off = first is None or _order(first[0].decode()) > _order(cursor)
        if cut_off:
            self._on_gap(event_id)

    async def _read(self) -> list[_Entry]:
        if not self._followed:
            if not self._stopping:
                await self._wait_for_news()
            return []
        streams: dict[Any, Any] = {
            keys.of_event(event_id)["changes"]: followed.cursor
            for event_id, followed in self._followed.items()
        }
        found: list[_Entry] = []
        self._is_behind = False
        for stream, entries in await self._entries(streams):
            event_id = _event_of_stream(stream.decode())
            found += [(event_id, entry_id.decode(), fields) for entry_id, fields in entries]
            self._is_behind |= len(entries) >= _ENTRIES_PER_READ
        return found

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(_BLOCK_MS / 1000):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def _entries(self, streams: dict[Any, Any]) -> Iterable[tuple[bytes, Any]]:
        """The new entries of each stream that has some; waits a little when none has."""
        if not isinstance(self._client, RedisCluster):
            read: Any = await self._client.xread(
                streams, count=_ENTRIES_PER_READ, block=1 if self._stopping else _BLOCK_MS
            )
            return _of_read(read)
        # No node reads from two slots in one command, so none can be asked to wait for all.
        pipeline = self._client.pipeline()
        for stream, cursor in streams.items():
            pipeline.xread({stream: cursor}, count=_ENTRIES_PER_READ)
        found = [entry for read in await pipeline.execute() for entry in _of_read(read)]
        if not found and not self._stopping:
            await asyncio.sleep(_POLL_SECONDS)
        return found

    async def _save(self) -> None:
        moved = {
            event_id: followed
            for event_id, followed in self._followed.items()
            if followed.saved != followed.cursor
        }
        saved = await asyncio.gather(*(self._save_one(*one) for one in moved.items()))
        for event_id, is_saved in zip(moved, saved, strict=True):
            if not is_saved:
                del self._followed[event_id]
                self._holds.overtaken(event_id)

    async def _save_one(self, event_id: str, followed: _Followed) -> bool:
        cursor = followed.cursor
        oldest_kept = f"{max(0, _order(cursor)[0] - _KEEP_MS)}-0"
        is_saved = await self._queue.save_cursor(event_id, followed.token, cursor, oldest_kept)
        if is_saved:
            followed.saved = cursor
        return is_saved


def _portions(entries: Iterable[_Entry]) -> Iterator[tuple[list[Change], dict[str, str]]]:
    """The changes, a bounded number at a time, and the id of the last entry of each event."""
    changes: list[Change] = []
    cursors: dict[str, str] = {}
    for event_id, entry_id, fields in entries:
        changes += records.changes(event_id, entry_id, fields)
        cursors[event_id] = entry_id
        if len(changes) >= _CHANGES_AT_ONCE:
            yield changes, cursors
            changes, cursors = [], {}
    if cursors:
        yield changes, cursors


def _of_read(read: Any) -> Iterable[tuple[bytes, Any]]:
    """The streams of an answer to XREAD: RESP3 answers maps where RESP2 answers lists."""
    if isinstance(read, dict):
        return [(stream, entries[0]) for stream, entries in read.items()]
    return read or ()


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, number = entry_id.split("-")
    return int(milliseconds), int(number)


def _event_of_stream(stream: str) -> str:
    return stream[stream.index("{") + 1 : stream.rindex("}")]
