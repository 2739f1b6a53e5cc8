"""The audit log: who, what, when, from, to and why of every change of status, a JSON line each.

Lines come at least once: after a crash the last ones may come again, with the same
``change_id``. Nothing else is told apart by anything but that id.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import orjson

from booking_worker.domain.errors import InvalidSettings
from booking_worker.domain.model import Change
from booking_worker.telemetry.logs import get_logger

_MAX_RECORDS_PENDING = 10_000

log = get_logger(__name__)


class AuditLog:
    """Appends lines to standard output or a file; lines of one call are one write.

    Writing happens on a thread of its own: a slow disk or a reader that stalls holds up who
    waits for the line to be written, and no one else.
    """

    def __init__(self, target: str, count_lost: Callable[[int], None] | None = None) -> None:
        """``target`` is ``stdout``, ``off`` or a path; ``count_lost`` hears of lines given up."""
        self._target = target
        self._count_lost = count_lost
        self._descriptor: int | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._torn = False
        self._is_file = True
        self._records: list[bytes] = []
        self._flushing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the target.

        Raises:
            InvalidSettings: AUDIT_LOG cannot be written to.
        """
        if self._target == "off" or self._writer is not None:
            return
        try:
            self._descriptor = (
                os.dup(sys.stdout.fileno()) if self._target == "stdout" else _open(self._target)
            )
        except OSError as error:
            why = "nobody reads it" if error.errno == errno.ENXIO else error.strerror or error
            problem = (
                f"AUDIT_LOG: got {self._target!r}, which cannot be written to:"
                f" {why}; takes stdout, off, or the path of a file"
            )
            raise InvalidSettings([problem]) from None
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="audit")

    async def stop(self) -> None:
        """Write what is left and close."""
        if self._flushing is not None:
            await self._flushing
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await asyncio.to_thread(writer.shutdown)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def write(self, changes: Sequence[Change]) -> None:
        """Write one line for each change, in order; when it returns they are written.

        Raises:
            OSError: they were not (disk full, reader gone); the same changes may be given again.
        """
        if self._writer is not None and changes:
            await self._append(self._writer, _lines(changes))

    def record(self, facts: Mapping[str, Any]) -> None:
        """Write a line about something that changed no status, such as a refusal, soon.

        ``at`` and ``at_ms`` are added, by this machine's clock. When lines come faster than
        they can be written, they are given up and counted rather than kept without bound.
        """
        if self._writer is None:
            return
        if len(self._records) >= _MAX_RECORDS_PENDING:
            self._lost(1)
            return
        at_ms = time.time_ns() // 1_000_000
        line = {"at": _iso(at_ms), "at_ms": at_ms, **facts}
        self._records.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_records(self._writer))

    async def _flush_records(self, writer: ThreadPoolExecutor) -> None:
        try:
            while self._records:
                lines, self._records = self._records, []
                try:
                    await self._append(writer, b"".join(lines))
                except OSError as error:
                    self._lost(len(lines))
                    log.error("audit lines lost", lines=len(lines), error=str(error))  # noqa: TRY400
        finally:
            self._flushing = None

    def _lost(self, lines: int) -> None:
        if self._count_lost is not None:
            self._count_lost(lines)

    async def _append(self, writer: ThreadPoolExecutor, data: bytes | bytearray) -> None:
        await asyncio.get_running_loop().run_in_executor(writer, self._append_blocking, data)

    def _append_blocking(self, data: bytes | bytearray) -> None:
        assert self._descriptor is not None  # noqa: S101 - open as long as the writer lives
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest:
            written = os.write(self._descriptor, rest[: self._undivided(rest)])
            # Should the next write fail, half a line stands there; it gets a line of its own.
            self._torn = rest[written - 1] != ord("\n")
            rest = rest[written:]

    def _undivided(self, data: memoryview) -> int:
        """How many bytes to write at once, so that lines of other processes don't come between.

        A file takes everything; a pipe as many whole lines as PIPE_BUF has room for, and may
        tear a line that is longer.
        """
        if self._is_file or len(data) <= select.PIPE_BUF:
            return len(data)
        end = bytes(data[: select.PIPE_BUF]).rfind(b"\n") + 1
        return end or bytes(data).find(b"\n") + 1


def _open(path: str) -> int:
    # A pipe without a reader would otherwise be waited for, and the whole service with it.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o640)
    os.set_blocking(descriptor, True)
    return descriptor


def _lines(changes: Sequence[Change]) -> bytearray:
    # Of one buffer that grows, not of a list to join: hundreds of lines that are all kept until
    # then each take memory that the process has not touched lately.
    lines = bytearray()
    last_ms, at = -1, ""
    # Unpacked once and by position: one of these is written for each join.
    for (
        change_id, event_id, at_ms, who, item_id, user_id, before, after, why, seats, seq,
        booking_id, _, _,
    ) in changes:  # fmt: skip
        if at_ms != last_ms:
            last_ms, at = at_ms, _iso(at_ms)
        line = {
            "at": at,
            "at_ms": at_ms,
            "who": who,
            "item_id": item_id,
            "event_id": event_id,
            "user_id": user_id,
            "from": before,
            "to": after,
            "why": why,
            "seats": seats,
            "seq": seq,
            "booking_id": booking_id,
            "change_id": change_id,
        }
        lines += orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    return lines


def _iso(at_ms: int) -> str:
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
