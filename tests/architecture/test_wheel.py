from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.architecture.house import ROOT, SOURCE


def test_the_wheel_has_everything_that_the_package_has(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = {
        name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("booking_worker/")
    }
    there = {
        str(path.relative_to(SOURCE.parent))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    assert {"booking_worker/py.typed", "booking_worker/queue/lua/join.lua"} <= packed
