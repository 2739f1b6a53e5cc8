"""One of the processes, as the supervisor sees it.

Each has a socket of its own to the supervisor as its standard input. Messages are msgpack, one
after another. To the child: first :func:`hello`, then ``{"ready": 1, "of": 2, "troubles": [...]}``
at each change. From it: ``{"ready": True}`` once, then its metrics and why it is not ready
(empty when it is) every two seconds. When the socket closes, the child ends at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgpack
from pydantic import SecretStr

import booking_worker
from booking_worker.config import Settings

COMMAND: Final = (sys.executable, "-P", "-m", "booking_worker", "serve", "--child")
"""``-P``: what lies in the working directory is not imported."""
_MOST_BYTES: Final = 64 * 2**20
_READ_BYTES: Final = 65536
_LAST_WORDS_SECONDS: Final = 1.0


def hello(number: int, settings: Settings, **changed: object) -> dict[str, Any]:
    """What a child is told first: which it is, and all settings, some of them changed for it.

    It goes by these alone, so that one that is started later runs with the same.
    """
    return {"number": number, "settings": {**settings.model_dump(), **changed}}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    raise TypeError(f"a setting of the type {type(value).__name__} cannot be told to a child")


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as it goes over the socket."""
    packed: bytes = msgpack.packb(message, default=_plain)
    return packed


def unpacker() -> msgpack.Unpacker:
    """Takes what came over the socket apart into messages again."""
    return msgpack.Unpacker(max_buffer_size=_MOST_BYTES)


class Child:
    """A process that was started, and what it said last."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_message: Callable[[dict[str, Any]], None],
    ) -> None:
        self._process = process
        self._writer = writer
        self._on_message = on_message
        self._hearing = asyncio.create_task(self._hear(reader))
        self.pid = process.pid
        self.heard_at = time.monotonic()
        """When it said something last, on this process's monotonic clock."""

    @classmethod
    async def start(
        cls,
        first: Mapping[str, Any],
        on_message: Callable[[dict[str, Any]], None],
        command: Sequence[str] = COMMAND,
    ) -> Child:
        """Start one, in a session of its own: Ctrl-C in a terminal reaches its supervisor alone.

        Raises:
            OSError: it can't be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=theirs.fileno(), env=_environment(), start_new_session=True
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = cls(process, reader, writer, on_message)
        child.tell(first)
        return child

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send it a message; one that has ended does not hear it."""
        if not self._writer.is_closing():
            self._writer.write(pack(message))

    def terminate(self) -> None:
        """Ask it to end; asking again is asking."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Not Process.send_signal: that looks first whether it has ended, and so takes the exit code
        # away from who waits for it, who is then told 255.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self) -> int:
        """Its exit code (negative: a signal), once it has ended and was heard out."""
        code = await self._process.wait()
        await asyncio.wait({self._hearing}, timeout=_LAST_WORDS_SECONDS)
        self._hearing.cancel()
        self._writer.close()
        return code

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        messages = unpacker()
        try:
            while data := await reader.read(_READ_BYTES):
                messages.feed(data)
                self.heard_at = time.monotonic()
                for message in messages:
                    self._on_message(message)
        except ConnectionError:
            return  # it was killed while it spoke


def _environment() -> dict[str, str]:
    package = str(Path(booking_worker.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
