"""The engine on one machine: a Valkey server of our own, with an append-only file in DATA_DIR."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from booking_worker.domain.errors import EngineFailed
from booking_worker.engine.connection import HiredisConnection
from booking_worker.engine.data_dir import DataDir
from booking_worker.engine.orphan import end_orphan
from booking_worker.engine.server_binary import ServerBinary, find_server, server_environment

# A command meets a dead or hung server within 2 s: the waits for a free connection, for the
# connect and for the answer add up to 1.9 s.
POOL_WAIT_SECONDS: Final = 0.3
CONNECT_SECONDS: Final = 0.4
ANSWER_SECONDS: Final = 1.2
CONNECTIONS: Final = 64

SILENT_START_SECONDS: Final = 15.0
"""How long a starting server may say nothing at all; loading may take longer, as it is seen."""
LOADING_LOG_SECONDS: Final = 2.0
SHUTDOWN_SECONDS: Final = 6.0
CANCEL_AGAIN_SECONDS: Final = 0.1
RESTART_FIRST_SECONDS: Final = 0.05
RESTART_MOST_SECONDS: Final = 5.0
STABLE_SECONDS: Final = 30.0
"""A server that ran this long is started again without waiting longer than the first time."""

_log = structlog.get_logger(__name__)


class EmbeddedEngine:
    """A server started and owned by this process: an :class:`Engine`.

    It listens on a Unix socket alone, appends every change to a file in ``data_dir``, and is
    started again from that file when it dies. It is in a session of its own, so that Ctrl-C in
    a terminal reaches the service and not the server under it.
    """

    def __init__(
        self,
        data_dir: Path,
        fsync: Literal["always", "everysec"] = "always",
        *,
        binary: ServerBinary | None = None,
    ) -> None:
        """``fsync``: before every answer, or once a second; ``binary``: None looks for one."""
        self._data_dir = DataDir(data_dir)
        self._fsync = fsync
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._exited: asyncio.Future[int] | None = None
        self._log_start = 0
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def description(self) -> str:
        """What runs, where, and how durable it is."""
        program = f"{self._binary.origin}, " if self._binary else ""
        return f"embedded ({program}fsync {self._fsync}) on {self._data_dir.socket}"

    @property
    def data_dir(self) -> Path:
        """The directory it owns, absolute."""
        return self._data_dir.path

    @property
    def socket(self) -> Path:
        """Where the server listens."""
        return self._data_dir.socket

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Own the directory, end what a killed service left there, and start the server.

        Raises :class:`EngineInUse`, which names the directory and its owner, and
        :class:`EngineFailed`, which says what to do.
        """
        if self._supervisor is not None:
            return
        self._data_dir.acquire()
        try:
            async with self._brief_client() as client:
                await end_orphan(self._data_dir, client)
            exited = await self._launch()
        except BaseException:
            self._data_dir.release()
            raise
        self._supervisor = asyncio.create_task(self._keep_running(exited), name="engine-supervisor")

    async def stop(self) -> None:
        """Shut the server down with everything on disk, and let go of the directory."""
        supervisor, self._supervisor = self._supervisor, None
        while supervisor is not None and not supervisor.done():
            # Once may not be enough: asyncio.wait_for, which redis-py sends with, loses a
            # cancellation that comes together with its result (until Python 3.12).
            supervisor.cancel()
            await asyncio.wait({supervisor}, timeout=CANCEL_AGAIN_SECONDS)
        await self._end()
        self._data_dir.release()

    def abandon(self) -> None:
        """Let the server save and end by itself, for a process that ends without waiting."""
        if self._process is not None:
            self._process.terminate()

    def client(self) -> Redis:
        """A new client with a pool of its own; see :meth:`Engine.client`.

        At most 64 connections; who waits 0.3 s for a free one gets ``ConnectionError``. No
        health checks by PING: the end of a Unix socket is noticed when a connection is taken
        from the pool, and a server that hangs by the time limit on its answer.
        """
        pool = BlockingConnectionPool(
            max_connections=CONNECTIONS,
            timeout=POOL_WAIT_SECONDS,
            connection_class=HiredisConnection,
            path=str(self._data_dir.socket),
            protocol=2,
            decode_responses=False,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
        )
        return Redis.from_pool(pool)

    @asynccontextmanager
    async def _brief_client(self) -> AsyncIterator[Redis]:
        client = self.client()
        try:
            yield client
        finally:
            # A stop may cancel this very line, and redis-py would then leave its sockets open.
            await asyncio.shield(client.aclose())

    def _arguments(self, binary: ServerBinary) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._data_dir.socket),
            "unixsocketperm": "700",
            "dir": str(self._data_dir.path),
            "pidfile": str(self._data_dir.pid_file),
            "logfile": "",
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "no-appendfsync-on-rewrite": "no",
            "aof-load-truncated": "yes",
            "aof-use-rdb-preamble": "yes",
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "64mb",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
        }
        options = (word for name, value in settings.items() for word in (f"--{name}", value))
        return [str(binary.path), *options]

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._binary = self._binary or find_server()
        alive = self._data_dir.server_lock()
        log = -1
        try:
            # Nobody may take the id of an earlier server for this one's.
            self._data_dir.pid_file.unlink(missing_ok=True)
            log = self._data_dir.open_log()
            self._log_start = os.fstat(log).st_size
            return subprocess.Popen(  # noqa: S603 - the arguments are ours
                self._arguments(self._binary),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data_dir.path,
                env=server_environment(),
                pass_fds=(alive,),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineFailed(f"the embedded engine does not start: {error}") from error
        finally:
            os.close(alive)
            if log >= 0:
                os.close(log)

    async def _launch(self) -> asyncio.Future[int]:
        began = time.monotonic()
        process = self._spawn()
        self._process = process
        self._exited = exited = _exit_of(process)
        try:
            version = await self._ready(process, exited)
        except BaseException:
            await self._end()
            raise
        _log.info(
            "engine.ready",
            version=version,
            pid=process.pid,
            socket=str(self._data_dir.socket),
            fsync=self._fsync,
            seconds=round(time.monotonic() - began, 3),
        )
        return exited

    async def _ready(self, process: subprocess.Popen[bytes], exited: asyncio.Future[int]) -> str:
        """The server's version, once it has loaded its data and takes commands."""
        now = time.monotonic()
        silent_since = logged_at = now
        async with self._brief_client() as client:
            while not exited.done():
                now = time.monotonic()
                try:
                    info = await client.info()
                except (RedisError, OSError) as error:
                    if now - silent_since > SILENT_START_SECONDS:
                        raise EngineFailed(
                            f"the embedded engine does not answer on {self.socket}: {error}"
                        ) from error
                else:
                    silent_since = now
                    self._check_is_ours(info, process)
                    if not info["loading"]:
                        return _version(info)
                    if now - logged_at > LOADING_LOG_SECONDS:
                        logged_at = now
                        _log.info(
                            "engine.loading",
                            percent=info.get("loading_loaded_perc"),
                            seconds_left=info.get("loading_eta_seconds"),
                        )
                await asyncio.wait({exited}, timeout=0.005)
        tail = self._data_dir.log_tail(self._log_start)
        raise EngineFailed(
            f"the embedded engine ended while starting; {self._data_dir.log} says:\n{tail}"
        )

    def _check_is_ours(self, info: dict[str, Any], process: subprocess.Popen[bytes]) -> None:
        if info["process_id"] != process.pid:
            raise EngineFailed(
                f"another server (process {info['process_id']}) answers on {self.socket}"
            )

    async def _keep_running(self, exited: asyncio.Future[int]) -> None:
        """Start the server again whenever it dies, until cancelled."""
        delay = RESTART_FIRST_SECONDS
        while True:
            began = time.monotonic()
            code = await asyncio.shield(exited)
            if time.monotonic() - began > STABLE_SECONDS:
                delay = RESTART_FIRST_SECONDS
            _log.error("engine.died", exit_code=code, log=str(self._data_dir.log))
            while True:
                await asyncio.sleep(delay)
                delay = min(delay * 2, RESTART_MOST_SECONDS)
                try:
                    exited = await self._launch()
                except (EngineFailed, OSError) as error:
                    _log.exception("engine.restart_failed", retry_seconds=delay, error=str(error))
                else:
                    break

    async def _end(self) -> None:
        """Return once the server has ended: by SIGTERM, at which it saves, or else killed."""
        process, exited = self._process, self._exited
        if process is None or exited is None:
            return
        if not exited.done():
            process.terminate()
            await asyncio.wait({exited}, timeout=SHUTDOWN_SECONDS)
        if not exited.done():
            _log.warning("engine.does_not_stop", pid=process.pid, sending="SIGKILL")
            process.kill()
            await asyncio.wait({exited})
        self._process = self._exited = None


def _exit_of(process: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """The process's exit code, once it has one.

    A thread waits for it, as asyncio's own child watchers differ between loops and platforms.
    """
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()

    def tell(code: int) -> None:
        if not exited.done():
            exited.set_result(code)

    def wait() -> None:
        code = process.wait()
        # A rewrite of the file that the server had under way dies with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        # The loop may be closed by then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, code)

    threading.Thread(target=wait, name=f"engine-{process.pid}", daemon=True).start()
    return exited


def _version(info: dict[str, Any]) -> str:
    return str(info.get("valkey_version") or info["redis_version"])
