"""What tests that start ``booking-worker`` as a process share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from booking_worker.config import Settings

SOURCE = Path(__file__).parents[2] / "src"


def child_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without settings, in which all is compiled once for the whole session.

    Compiling takes longer than starting, and where PYTHONDONTWRITEBYTECODE is set it is done
    at each start.
    """
    left_out = {"PYTHONDONTWRITEBYTECODE", *(name.upper() for name in Settings.model_fields)}
    return {
        **{name: value for name, value in os.environ.items() if name.upper() not in left_out},
        "PYTHONPATH": str(SOURCE),
        "PYTHONPYCACHEPREFIX": str(tmp_path_factory.getbasetemp() / "bytecode"),
    }


def processes_in(directory: Path) -> list[int]:
    """The processes that work in a directory or below it; looks in /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                working = (entry / "cwd").readlink()
            except OSError:
                continue
            if working.is_relative_to(directory):
                found.append(int(entry.name))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
