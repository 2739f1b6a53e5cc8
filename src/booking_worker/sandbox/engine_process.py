"""A server for several replicas to share: on a port of its own, with its data in a directory."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from booking_worker.domain.errors import EngineFailed
from booking_worker.engine.redis import RedisEngine
from booking_worker.engine.server_binary import find_server, server_environment
from booking_worker.sandbox.processes import STOP_SECONDS, ProcessFailed

_PORTS: Final = range(10_000, 18_000)
_START_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02
_TAIL_BYTES: Final = 2_000


class EngineProcess:
    """A Valkey or Redis server on the loopback, which syncs before it answers.

    May be started again once it has ended, on the same port and data.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        """Where it listens, once it was started."""

    async def start(self) -> None:
        """Start it, unless it runs; return when it has loaded its data and answers.

        Raises:
            ProcessFailed: it ended instead, or was not ready in time.
            EngineFailed: there is no server to be had.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._directory.mkdir(exist_ok=True)
        self.port = self.port or _free_port()
        with self._log.open("ab") as log:
            process = self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - it is quick
                self._command(),
                cwd=self._directory,
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not await self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ProcessFailed(f"the engine did not start:\n{self._tail()}")
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self) -> None:
        """Ask it to end (SIGTERM), and return when it has. Stopping again is stopping.

        Raises:
            ProcessFailed: it had to be killed.
        """
        process = self._process
        if process is None:
            return
        process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise ProcessFailed(f"the engine did not stop, and was killed:\n{self._tail()}")
            await asyncio.sleep(_LOOK_SECONDS)
        self._process = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), and return when it has."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _command(self) -> list[str]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        words = (word for name, value in options.items() for word in (f"--{name}", value))
        return [str(find_server().path), *words]

    async def _answers(self) -> bool:
        # It listens before it has read its files, which it may not be able to.
        try:
            await RedisEngine(("127.0.0.1", self.port)).start()
        except EngineFailed:
            return False
        return True

    def _tail(self) -> str:
        return self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")


def _free_port() -> int:
    """One that outgoing connections never get: who asks for a dead engine's would meet itself."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
