"""Real servers outside the service, as an operator runs them: one, Sentinel, Cluster.

Each is a context manager that gives servers on free loopback ports, in a directory that is gone
afterwards. A test kills, stops and restarts them one by one; whatever it did to them, all have
ended when the block has::

    async with sentinel() as made:
        await (await made.master()).kill()
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from booking_worker.engine.server_binary import ServerBinary, find_server
from tests.support.wait import wait_until

HOST: Final = "127.0.0.1"
CERTIFICATES: Final = Path(__file__).parent / "certificates"
CA: Final = CERTIFICATES / "ca.pem"
MASTER_NAME: Final = "bookings"
SLOTS: Final = 16_384
NODE_TIMEOUT_MS: Final = 1_500
DOWN_AFTER_MS: Final = 500

# Not of the range from which the system takes the ports of outgoing connections: a client that
# asks for a dead server's port could be given that very port, and talk to itself.
_PORTS: Final = range(18_000, 32_000)
_LETS_GO_SECONDS: Final = 10.0

Options = Mapping[str, str]
"""Lines of redis.conf, such as ``{"appendfsync": "always"}``; a line's value may have spaces."""


def free_port() -> int:
    """A port of the loopback that nobody has now, and that outgoing connections never get."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


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
        async with self.client() as client:
            client.response_callbacks.clear()
            return await client.execute_command(*command)

    async def start(self) -> None:
        """Start it, with the data that it had; return when it has loaded them and answers."""
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
        await wait_until(self._answers, timeout=15)

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


@contextmanager
def _directory() -> Iterator[Path]:
    # Not tmp_path: servers for a whole session outlive the tests.
    path = Path(tempfile.mkdtemp(prefix="bw-servers-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@asynccontextmanager
async def _running(*servers: Server) -> AsyncIterator[None]:
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


@asynccontextmanager
async def standalone(
    binary: ServerBinary | None = None,
    options: Options | None = None,
    *,
    tls: bool = False,
    username: str | None = None,
    password: str | None = None,
) -> AsyncIterator[Server]:
    """One server. ``tls`` needs a binary that was built with it, such as Debian's."""
    with _directory() as path:
        server = Server(
            binary or find_server(),
            path,
            options or {},
            tls=tls,
            username=username,
            password=password,
        )
        async with _running(server):
            yield server


@dataclass(frozen=True)
class Sentinels:
    """Two servers of which one is the master, watched by three sentinels that agree by two."""

    servers: Sequence[Server]
    """The first is the master at the beginning."""
    sentinels: Sequence[Server]
    master_name: str = MASTER_NAME

    @property
    def endpoints(self) -> str:
        """As REDIS_SENTINELS takes it."""
        return ",".join(sentinel.endpoint for sentinel in self.sentinels)

    async def master(self) -> Server:
        """Whom the majority of the sentinels call the master now."""
        named = [
            await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master_name)
            for sentinel in self.sentinels
            if sentinel.process is not None
        ]
        ports = [int(address[1]) for address in named if address]
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    async def replica(self) -> Server:
        """The other one, whether it follows or not."""
        master = await self.master()
        return next(server for server in self.servers if server is not master)

    async def failed_over(self, old: Server) -> Server:
        """The server that took the place of the old master, once it takes writes."""

        async def another() -> Server | None:
            found = await self.master()
            if found is old:
                return None
            return found if await _role(found) == b"master" else None

        promoted: Server = await wait_until(another, timeout=20)
        return promoted

    async def in_step(self) -> None:
        """Return once the replica follows and every sentinel could fail over."""
        await wait_until(self._in_step, timeout=20)

    async def _in_step(self) -> bool:
        master = await self.master()
        _, _, followers = await master.ask("ROLE")
        return (
            len(followers) == 1
            and await _role(await self.replica()) == b"slave"
            and all([await self._sees_all(sentinel) for sentinel in self.sentinels])
        )

    async def _sees_all(self, sentinel: Server) -> bool:
        answer = await sentinel.ask("SENTINEL", "MASTER", self.master_name)
        facts = dict(zip(answer[::2], answer[1::2], strict=True))
        sees = (facts[b"num-slaves"], facts[b"num-other-sentinels"], facts[b"flags"])
        return bool(sees == (b"1", b"2", b"master"))


async def _role(server: Server) -> bytes:
    try:
        answer = await server.ask("ROLE")
    except RedisError:
        return b""
    if answer[0] == b"slave" and answer[3] != b"connected":
        return b"connecting"
    return bytes(answer[0])


@asynccontextmanager
async def sentinel(
    binary: ServerBinary | None = None, options: Options | None = None
) -> AsyncIterator[Sentinels]:
    """A master, a replica in step with it, and three sentinels; a failover takes 1 to 2 s.

    ``options`` are those of the two servers.
    """
    program = binary or find_server()
    with _directory() as path:
        master = Server(program, path / "server-0", options or {})
        replica = Server(
            program, path / "server-1", {**(options or {}), "replicaof": f"{HOST} {master.port}"}
        )
        watch = {
            f"sentinel monitor {MASTER_NAME}": f"{HOST} {master.port} 2",
            f"sentinel down-after-milliseconds {MASTER_NAME}": str(DOWN_AFTER_MS),
            f"sentinel failover-timeout {MASTER_NAME}": "2000",
        }
        sentinels = [
            Server(program, path / f"sentinel-{at}", watch, as_sentinel=True) for at in range(3)
        ]
        async with _running(master, replica, *sentinels):
            for one in sentinels:
                # What they tell one another every 2 s and ask the servers every 10 s.
                await one.ask(
                    "SENTINEL", "DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200,
                )  # fmt: skip
            made = Sentinels((master, replica), sentinels)
            await made.in_step()
            yield made


@dataclass(frozen=True)
class Cluster:
    """Three masters that share the slots evenly; no replicas."""

    nodes: Sequence[Server]

    @property
    def endpoints(self) -> str:
        """All of them, comma separated."""
        return ",".join(node.endpoint for node in self.nodes)

    async def owner(self, key: str) -> Server:
        """The node that has the key's slot, as the first node that runs knows it."""
        asked = next(node for node in self.nodes if node.process is not None)
        slot = await asked.ask("CLUSTER", "KEYSLOT", key)
        ranges = await asked.ask("CLUSTER", "SLOTS")
        port = next(node[1] for first, last, node, *_ in ranges if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    async def whole(self) -> None:
        """Return once every node says that all slots are served and all nodes are there."""
        await wait_until(self._whole, timeout=20)

    async def _whole(self) -> bool:
        for node in self.nodes:
            info = (await node.ask("CLUSTER", "INFO")).decode().split()
            wanted = {
                "cluster_state:ok",
                f"cluster_slots_ok:{SLOTS}",
                f"cluster_known_nodes:{len(self.nodes)}",
            }
            if not wanted.issubset(info):
                return False
        return True


@asynccontextmanager
async def cluster(
    binary: ServerBinary | None = None, options: Options | None = None
) -> AsyncIterator[Cluster]:
    """Three nodes that have met and between them serve all slots."""
    with _directory() as path:
        nodes = [
            Server(
                binary or find_server(),
                path / f"node-{at}",
                {
                    "cluster-enabled": "yes",
                    "cluster-port": str(free_port()),
                    "cluster-node-timeout": str(NODE_TIMEOUT_MS),
                    **(options or {}),
                },
            )
            for at in range(3)
        ]
        async with _running(*nodes):
            bounds = [round(SLOTS * at / len(nodes)) for at in range(len(nodes) + 1)]
            for at, node in enumerate(nodes):
                await node.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
                await node.ask("CLUSTER", "ADDSLOTSRANGE", bounds[at], bounds[at + 1] - 1)
                await node.ask(
                    "CLUSTER", "MEET", HOST, nodes[0].port, nodes[0].options["cluster-port"]
                )
            made = Cluster(nodes)
            await made.whole()
            yield made
