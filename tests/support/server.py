"""One real server of a test's own, which it kills, stops and restarts."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from booking_worker.engine.server_binary import ServerBinary
from tests.support.wait import wait_until

HOST: Final = "127.0.0.1"
CERTIFICATES: Final = Path(__file__).parent / "certificates"
CA: Final = CERTIFICATES / "ca.pem"

# Not of the range from which the system takes the ports of outgoing connections: a client that
# asks for a dead server's port could be given that very port, and talk to itself. Each worker of
# pytest-xdist has a share of its own: what was free for one may be another's a moment later.
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SHARES: Final = [range(first, first + 1_750) for first in range(18_000, 32_000, 1_750)]
_SHARE: Final = _SHARES[_WORKER % len(_SHARES)]
_ports = itertools.cycle(random.sample(_SHARE, len(_SHARE)))
_LETS_GO_SECONDS: Final = 10.0

Options = Mapping[str, str]
"""Lines of redis.conf, such as ``{"appendfsync": "always"}``; a line's value may have spaces."""


def free_port() -> int:
    """A port of the loopback that nobody has or will be told of, and outgoing connections never get."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports go round for ever")


@dataclass
class Server:
    """One server process with a port and a directory that stay the same over its restarts."""

    binary: ServerBinary
    directory: Path
    options: Options = field(default_factory=dict)
    tls: bool = False
    as_sentinel: bool = False
    username: str | None = None
    password: str | None = None
    """What :meth:`client` says who it is, when ``options`` make that necessary."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def endpoint(self) -> str:
        """As settings write it."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self.process is not None, "it does not run"
        return self.process.pid

    def client(self) -> Redis:
        """A plain client that tries once; answers are bytes. The caller closes it."""
        return Redis(
            host=HOST,
            port=self.port,
            username=self.username,
            password=self.password,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=5,
            ssl=self.tls,
            ssl_ca_certs=str(CA) if self.tls else None,
            ssl_certfile=str(CERTIFICATES / "client.pem") if self.tls else None,
            ssl_keyfile=str(CERTIFICATES / "client.key") if self.tls else None,
        )

    async def ask(self, *command: str | int) -> Any:
        """The answer to one command as the server gave it, over a connection of its own."""
        client = self.client()
        client.response_callbacks.clear()
        try:
            return await client.execute_command(*command)
        finally:
            # A task that is cancelled as it closes a client leaves the socket open.
            await asyncio.shield(client.aclose())

    async def start(self) -> None:
        """Start it, with the data that it had; return when it has loaded them and answers."""
        self.spawn()
        await wait_until(self._answers, timeout=15)

    def spawn(self) -> None:
        """Start it; it may take a while until it answers."""
        config = self.directory / "server.conf"
        if not config.exists():
            # Once: the server writes to it what Sentinel tells it to be.
            self.directory.mkdir(parents=True, exist_ok=True)
            config.write_text("".join(f"{name} {value}\n" for name, value in self._lines()))
        log = (self.directory / "server.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [self.binary.path, config, *(["--sentinel"] if self.as_sentinel else [])],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """End it as a power cut does; what it had not written is lost."""
        self._signal(signal.SIGKILL)
        await self._ended()

    async def stop(self) -> None:
        """End it in order, also when it hangs or has ended already."""
        if self.process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            await self._ended()
        except AssertionError:
            await self.kill()

    def pause(self) -> None:
        """SIGSTOP: it has its connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """What it wrote."""
        return (self.directory / "server.log").read_text(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        # Popen sends nothing to a process that it has seen end.
        if self.process is not None:
            self.process.send_signal(number)

    async def _ended(self) -> None:
        process = self.process
        if process is not None:
            await wait_until(lambda: process.poll() is not None, _LETS_GO_SECONDS)
            self.process = None

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended:\n{self.log()[-2000:]}"
        try:
            async with self.client() as client:
                return bool(await client.ping())
        except AuthenticationError:
            raise
        except RedisError:  # not there yet, or loading
            return False

    def _lines(self) -> Iterator[tuple[str, str]]:
        port = str(self.port)
        yield "bind", HOST
        yield "dir", str(self.directory)
        if self.tls:
            yield from {
                "port": "0",
                "tls-port": port,
                "tls-ca-cert-file": str(CA),
                "tls-cert-file": str(CERTIFICATES / "server.pem"),
                "tls-key-file": str(CERTIFICATES / "server.key"),
                # To their own kind too; the sentinels go by it to the servers they watch.
                "tls-replication": "yes",
                "tls-cluster": "yes",
            }.items()
        else:
            yield "port", port
        if not self.as_sentinel:
            yield from {
                "appendonly": "yes",
                "appendfsync": "everysec",
                "save": '""',
                "repl-diskless-sync-delay": "0",
                **self.options,
            }.items()
        else:
            yield from self.options.items()
