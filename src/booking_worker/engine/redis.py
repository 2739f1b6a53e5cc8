"""The engine that an operator runs: one Redis or Valkey server, Sentinel, or Cluster."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from typing_extensions import override

from booking_worker.domain.errors import EngineFailed, InvalidSettings
from booking_worker.engine.cluster import ClusterClient
from booking_worker.engine.connection import (
    MasterConnection,
    MasterTlsConnection,
    TcpConnection,
    TlsConnection,
    ToSentinel,
    ToSentinelTls,
)
from booking_worker.engine.durability import info_of_each, version_of

# A command meets a dead or hung server within 2 s: the waits for a free connection, for the
# answers of two hung sentinels of three, for the connect and for the answer add up to 2 s.
POOL_WAIT_SECONDS: Final = 0.1
SENTINEL_SECONDS: Final = 0.2
CONNECT_SECONDS: Final = 0.3
ANSWER_SECONDS: Final = 1.2
CONNECTIONS: Final = 64
"""To each server, at most."""

LOADING_SECONDS: Final = 60.0
"""How long a server that loads its data is waited for at the start."""
LOADING_ASK_SECONDS: Final = 0.2

Address: TypeAlias = tuple[str, int]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """How the servers are spoken to by TLS. Hosts' names are checked in any case."""

    ca: Path | None = None
    """The PEM file with the CA of the servers; None: those that the system trusts."""
    cert: Path | None = None
    """The PEM file with this client's certificate, where the servers ask for one."""
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """What a server must be told or shown before it answers."""

    username: str = ""
    password: str = ""
    tls: Tls | None = None


def _insist_on_files(tls: Tls) -> None:
    """Raise which of them is of no use; connecting would only say that it can't be done."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Its own certificate as well: what loads that with its key does not say which it cannot use.
    for setting, path in (("REDIS_TLS_CA", tls.ca), ("REDIS_TLS_CERT", tls.cert)):
        if path is not None:
            try:
                context.load_verify_locations(path)
            except OSError as error:
                raise _unfit(setting, path, "is no certificate", error) from error
    if tls.cert is not None and tls.key is not None:
        try:
            # An empty password, or an encrypted key is asked about on the terminal.
            context.load_cert_chain(tls.cert, tls.key, lambda: "")
        except (OSError, ValueError) as error:
            what = "is not the key of REDIS_TLS_CERT, or is encrypted"
            raise _unfit("REDIS_TLS_KEY", tls.key, what, error) from error


def _unfit(setting: str, path: Path, what: str, error: Exception) -> InvalidSettings:
    why = getattr(error, "reason", None) or str(error)
    return InvalidSettings([f"{setting}: got {path}, which {what} ({why}); takes a PEM file"])


def _host(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _common(access: Access) -> dict[str, Any]:
    """What every connection is made with, whatever it leads to."""
    settings: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "username": access.username or None,
        "password": access.password or None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 0,
        # One question less to each new connection; and not every ACL allows it.
        "driver_info": None,
    }
    if access.tls is not None:
        files = {
            "ssl_ca_certs": access.tls.ca,
            "ssl_certfile": access.tls.cert,
            "ssl_keyfile": access.tls.key,
        }
        settings |= {name: str(path) if path else None for name, path in files.items()}
    return settings


def _never_again() -> Retry:
    return Retry(NoBackoff(), 0)


def server_client(address: Address, access: Access, database: int = 0) -> Redis:
    """A client of the one server there; see :meth:`Engine.client`."""
    pool = BlockingConnectionPool(
        max_connections=CONNECTIONS,
        timeout=POOL_WAIT_SECONDS,
        connection_class=TlsConnection if access.tls else TcpConnection,
        retry=_never_again(),
        host=address[0],
        port=address[1],
        db=database,
        **_common(access),
    )
    return Redis.from_pool(pool)


class _Sentinel(Sentinel):
    """Knows the master by what the sentinels say; their answers are waited for shortly."""

    def __init__(self, addresses: Sequence[Address], access: Access) -> None:
        super().__init__([])  # type: ignore[no-untyped-call]
        settings = _common(access) | {
            "socket_connect_timeout": SENTINEL_SECONDS,
            "socket_timeout": SENTINEL_SECONDS,
        }
        self.sentinels = [
            Redis.from_pool(
                BlockingConnectionPool(
                    max_connections=CONNECTIONS,
                    timeout=SENTINEL_SECONDS,
                    connection_class=ToSentinelTls if access.tls else ToSentinel,
                    retry=_never_again(),
                    host=host,
                    port=port,
                    **settings,
                )
            )
            for host, port in addresses
        ]


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a free connection, which redis-py's own refuses; closes the sentinels' too."""

    @override
    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class RedisEngine:
    """Servers that somebody else runs: an :class:`Engine`.

    At most 64 connections to each server; who waits 0.1 s for a free one (in Cluster: at all)
    gets ``ConnectionError``. With Sentinel each new connection goes to whom the sentinels call
    the master at that moment, and a connection to a server that is no master any more is given
    up at its first refusal. In Cluster, commands follow their slot.
    """

    def __init__(
        self,
        address: Address,
        access: Access = Access(),
        *,
        database: int = 0,
        sentinels: Sequence[Address] = (),
        master: str = "",
        cluster: bool = False,
    ) -> None:
        """``address``: of the server, or of any node of the Cluster.

        With ``sentinels`` it is not used: they tell where ``master`` is.
        """
        self._address = address
        self._access = access
        self._database = database
        self._sentinels = tuple(sentinels)
        self._master = master
        self._cluster = cluster
        self._version = ""

    @property
    def description(self) -> str:
        """What runs, where, and how it is spoken to."""
        what = self._version or "redis"
        if self._sentinels:
            nodes = ", ".join(map(_host, self._sentinels))
            where = f"master {self._master} of the sentinels {nodes}"
        elif self._cluster:
            where = f"Cluster at {_host(self._address)}"
        else:
            where = _host(self._address)
        database = f", database {self._database}" if self._database else ""
        return f"{what}, {where}{database}{', TLS' if self._access.tls else ''}"

    async def start(self) -> None:
        """Return once the engine answers; one that loads its data is waited for up to 60 s.

        Raises :class:`EngineFailed` or :class:`InvalidSettings`, which name the setting to change.
        """
        if self._access.tls is not None:
            _insist_on_files(self._access.tls)
        until = time.monotonic() + LOADING_SECONDS
        while True:
            try:
                await self._greet()
                return
            except BusyLoadingError as error:
                if time.monotonic() > until:
                    raise EngineFailed(f"{self.description}: it still loads its data") from error
            except (RedisError, OSError) as error:
                raise EngineFailed(await self._explain(error)) from error
            _log.info("engine.loading", engine=self.description)
            await asyncio.sleep(LOADING_ASK_SECONDS)

    async def stop(self) -> None:
        """There is nothing to let go of: the servers are not ours."""

    def client(self) -> Redis | RedisCluster:
        """A new client; see :meth:`Engine.client`."""
        if self._sentinels:
            return self._master_client()
        if self._cluster:
            return self._cluster_client()
        return server_client(self._address, self._access, self._database)

    def _master_client(self) -> Redis:
        pool = _MasterPool(  # type: ignore[no-untyped-call]
            self._master,
            _Sentinel(self._sentinels, self._access),
            max_connections=CONNECTIONS,
            timeout=POOL_WAIT_SECONDS,
            connection_class=MasterTlsConnection if self._access.tls else MasterConnection,
            retry=_never_again(),
            db=self._database,
            **_common(self._access),
        )
        return Redis.from_pool(pool)

    def _cluster_client(self) -> RedisCluster:
        client = ClusterClient(
            startup_nodes=[ClusterNode(*self._address)],
            # What is there is worked with; a slot that nobody has is an error to who needs it.
            require_full_coverage=False,
            max_connections=CONNECTIONS,
            retry=_never_again(),
            ssl=self._access.tls is not None,
            **_common(self._access),
        )
        client.connect_by(TlsConnection if self._access.tls else TcpConnection)
        return client

    async def _greet(self) -> None:
        client = self.client()
        try:
            info = await info_of_each(client)
        finally:
            await client.aclose()
        if any(one.get("loading") for one in info.values()):
            raise BusyLoadingError("it loads its data")
        name, first = next(iter(info.items()))
        if first.get("cluster_enabled") and not self._cluster:
            raise EngineFailed(f"{name} is a node of a Cluster: set REDIS_CLUSTER=true")
        self._version = version_of(first)

    async def _explain(self, error: BaseException) -> str:
        """What the operator should look at."""
        if isinstance(error, MasterNotFoundError):
            return await self._explain_no_master(error)
        text = str(error)
        while error.__cause__ is not None:
            error = error.__cause__
        if isinstance(error, AuthenticationError):
            return f"{self.description}: refuses REDIS_USERNAME and REDIS_PASSWORD: {error}"
        if isinstance(error, NoPermissionError):
            return f"{self.description}: REDIS_USERNAME may not do all that is needed: {error}"
        if "cluster mode is not enabled" in text.lower():
            return f"{_host(self._address)} is no node of a Cluster: set REDIS_CLUSTER=false"
        if isinstance(error, ResponseError) and "DB index" in text:
            return f"{self.description}: REDIS_DATABASE: it has no such database"
        see = "REDIS_SENTINELS" if self._sentinels else "REDIS_HOST, REDIS_PORT"
        return f"{self.description} does not answer: {text}; see {see} and REDIS_TLS"

    async def _explain_no_master(self, error: Exception) -> str:
        sentinel = _Sentinel(self._sentinels, self._access)
        known: set[str] = set()
        problems = []
        try:
            for address, one in zip(self._sentinels, sentinel.sentinels, strict=True):
                try:
                    known.update(map(str, await one.sentinel_masters()))
                except (RedisError, OSError) as problem:
                    problems.append(f"{_host(address)}: {problem}")
        finally:
            await sentinel.aclose()
        if self._master in known:
            return f"the sentinels know no master {self._master} that is up: {error}"
        if known:
            return (
                f"REDIS_SENTINEL_MASTER: got {self._master!r}, takes what the sentinels know:"
                f" {', '.join(sorted(known))}"
            )
        return f"none of REDIS_SENTINELS answers: {'; '.join(problems)}"
