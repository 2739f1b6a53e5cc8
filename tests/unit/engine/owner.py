"""Another process that owns an embedded engine, for a test to kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.engines import EngineFactory

SERVICE = """
import asyncio, sys
from pathlib import Path
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.server_binary import ServerBinary

async def main():
    engine = EmbeddedEngine(Path(sys.argv[1]), binary=ServerBinary(Path(sys.argv[2]), "test"))
    await engine.start()
    async with engine.client() as client:
        await client.set("kept", "yes")
    print("ready", engine.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def start_service(directory: Path, factory: EngineFactory) -> tuple[subprocess.Popen[str], int]:
    """Another process that owns an engine there, and the id of its engine."""
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(directory), str(factory.binary.path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert service.stdout is not None
    for line in service.stdout:
        if line.startswith("ready"):
            return service, int(line.split()[1])
    raise AssertionError("the service did not start")


def end(service: subprocess.Popen[str]) -> None:
    service.kill()
    service.wait()
    assert service.stdout is not None
    service.stdout.close()


def append_to_file(directory: Path, data: bytes) -> None:
    """Bytes at the end of the append-only file, as a write that was cut short leaves them."""
    [written] = directory.glob("appendonlydir/*.incr.aof")
    with written.open("ab") as file:
        file.write(data)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
