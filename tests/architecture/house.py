"""Where things are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "booking_worker"
UNIT_TESTS = ROOT / "tests" / "unit"
LUA = SOURCE / "queue" / "lua"


def python_files(*folders: Path) -> list[Path]:
    """Python files that people write, not those that are generated."""
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*.py")
        if SOURCE / "proto" not in path.parents
    )
