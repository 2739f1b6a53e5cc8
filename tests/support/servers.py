"""Real servers outside the service, as an operator runs them: one, Sentinel, Cluster.

Each is a context manager that gives servers on free loopback ports, in a directory that is gone
afterwards. A test kills, stops and restarts them one by one; whatever it did to them, all have
ended when the block has::

    async with sentinel() as made:
        await (await made.master()).kill()
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from booking_worker.engine.server_binary import ServerBinary, find_server
from tests.support.server import CA, CERTIFICATES, HOST, Options, Server, free_port
from tests.support.wait import wait_until

__all__ = [
    "CA",
    "CERTIFICATES",
    "HOST",
    "Cluster",
    "Options",
    "Sentinels",
    "Server",
    "cluster",
    "free_port",
    "sentinel",
    "standalone",
]

MASTER_NAME: Final = "bookings"
SLOTS: Final = 16_384
NODE_TIMEOUT_MS: Final = 1_500
DOWN_AFTER_MS: Final = 1_000
"""Shorter, and a busy machine is taken for a dead master now and then."""


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
        role, _, followers, *_ = await master.ask("ROLE")
        return (
            role == b"master"
            and len(followers) == 1
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
    binary: ServerBinary | None = None,
    options: Options | None = None,
    *,
    password: str | None = None,
    tls: bool = False,
    down_after_ms: int = DOWN_AFTER_MS,
) -> AsyncIterator[Sentinels]:
    """A master, a replica in step with it, and three sentinels; a failover takes about 2 s.

    ``options`` and ``password`` are those of the two servers; a master that says nothing for
    ``down_after_ms`` is replaced.
    """
    program = binary or find_server()
    guard = {"requirepass": password, "masterauth": password} if password else {}
    common = {**(options or {}), **guard}
    with _directory() as path:
        master = Server(program, path / "server-0", common, tls=tls, password=password)
        replica = Server(
            program,
            path / "server-1",
            {**common, "replicaof": f"{HOST} {master.port}"},
            tls=tls,
            password=password,
        )
        watch = {
            f"sentinel monitor {MASTER_NAME}": f"{HOST} {master.port} 2",
            f"sentinel down-after-milliseconds {MASTER_NAME}": str(down_after_ms),
            f"sentinel failover-timeout {MASTER_NAME}": "1000",
            **({f"sentinel auth-pass {MASTER_NAME}": password} if password else {}),
        }
        sentinels = [
            Server(program, path / f"sentinel-{at}", watch, tls=tls, as_sentinel=True)
            for at in range(3)
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
    binary: ServerBinary | None = None, options: Options | None = None, *, tls: bool = False
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
                tls=tls,
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
