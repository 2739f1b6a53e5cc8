"""A wire between two programs, on which answers get lost."""

from __future__ import annotations

import asyncio
from pathlib import Path


class Wire:
    """Passes on everything, until it is told to lose the answers.

    Listens where ``listen`` says: on a Unix socket, or on any free port of this machine.
    """

    def __init__(self, target: Path | str, listen: Path | None = None) -> None:
        self._target = target
        self._listen = listen
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self.loses_answers = False
        """Whether what comes back is dropped. What goes there arrives all the same."""

    async def start(self) -> None:
        """Listen."""
        if self._listen is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        else:
            self._server = await asyncio.start_unix_server(self._connected, self._listen)

    @property
    def endpoint(self) -> str:
        """Where it listens, when on a port."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def lead_to(self, target: Path | str) -> None:
        """From now on new connections end there; those that stand stay where they are."""
        self._target = target

    def cut(self) -> None:
        """Cut all connections; new ones are whole."""
        self.loses_answers = False
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """Cut, and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._passing:
            await asyncio.wait(self._passing)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, Path):
            there = await asyncio.open_unix_connection(self._target)
        else:
            host, _, port = self._target.rpartition(":")
            there = await asyncio.open_connection(host, int(port))
        for source, sink, is_answer in ((reader, there[1], False), (there[0], writer, True)):
            self._writers.add(sink)
            passing = asyncio.ensure_future(self._pass(source, sink, is_answer=is_answer))
            self._passing.add(passing)
            passing.add_done_callback(self._passing.discard)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                if not (is_answer and self.loses_answers):
                    sink.write(data)
                    await sink.drain()
        except OSError:
            pass  # cut at the other end
        finally:
            self._writers.discard(sink)
            sink.transport.abort()
