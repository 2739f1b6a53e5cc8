"""Ending the server that a killed service left behind, before another is started on its data."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from booking_worker.domain.errors import EngineFailed
from booking_worker.engine.data_dir import DataDir

CLEAN_EXIT_SECONDS: Final = 10.0
KILLED_EXIT_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)


async def end_orphan(data_dir: DataDir, client: Redis) -> None:
    """Return once no server runs on the directory, which the caller owns.

    A server that answers is asked to shut down, one that hangs is killed; neither loses what
    it acknowledged. Raises :class:`EngineFailed` when what runs there is not ours to end.
    """
    if not data_dir.server_is_alive():
        return
    _log.warning(
        "engine.orphan_found",
        data_dir=str(data_dir.path),
        pid=data_dir.server_pid(),
        detail="the engine of a service that was killed still runs; it is shut down first",
    )
    try:
        await _ask_to_shut_down(data_dir, client)
    except (RedisError, OSError) as error:
        _log.warning("engine.orphan_silent", error=str(error))
        _kill(data_dir)
    if await _gone(data_dir, CLEAN_EXIT_SECONDS):
        return
    _kill(data_dir)
    if not await _gone(data_dir, KILLED_EXIT_SECONDS):
        raise EngineFailed(
            f"a server process that was left behind still uses DATA_DIR {data_dir.path} "
            f"(its id is in {data_dir.pid_file}): end it, then start again"
        )


async def _ask_to_shut_down(data_dir: DataDir, client: Redis) -> None:
    [_, answer] = await client.execute_command("CONFIG", "GET", "dir")
    directory = os.fsdecode(answer)
    if directory != str(data_dir.path):
        raise EngineFailed(
            f"the server on {data_dir.socket} works in {directory}, "
            f"not in DATA_DIR {data_dir.path}: it is not this service's to end"
        )
    try:
        await client.execute_command("SHUTDOWN")
    except (RedisError, OSError):
        # It closes the connection instead of answering; whether it went is seen by its lock.
        return


def _kill(data_dir: DataDir) -> None:
    pid = data_dir.server_pid()
    if pid is None or not _works_in(pid, data_dir):
        return
    _log.warning("engine.orphan_killed", pid=pid)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _works_in(pid: int, data_dir: DataDir) -> bool:
    """Whether the process is a server on this directory, and not a later one of the same id."""
    working_directory = Path(f"/proc/{pid}/cwd")
    if working_directory.exists():
        return os.path.realpath(working_directory) == str(data_dir.path)
    ps = subprocess.run(  # noqa: S603 - the arguments are ours
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return str(data_dir.socket) in ps.stdout


async def _gone(data_dir: DataDir, seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while data_dir.server_is_alive():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
