"""Processes of our own: their output goes to a file, and each is ended by its id."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

import booking_worker
from booking_worker.domain.errors import BookingWorkerError

START_SECONDS: Final = 60.0
"""Long, as a busy machine may take its time; it is given up at once when the process ends."""
STOP_SECONDS: Final = 40.0
_LOOK_SECONDS: Final = 0.02
_TAIL_LINES: Final = 15
_SHORT_BYTES: Final = 50
"""In such a directory a Unix socket of a temporary directory still has a path that is allowed."""


class ProcessFailed(BookingWorkerError):
    """A process did not start, or did not stop when it was told to."""


class BookingWorkerProcess:
    """``booking-worker COMMAND --ready-file ...`` in a process of its own.

    It is started in a session of its own, so that Ctrl-C in a terminal reaches its owner
    alone. May be started again once it has ended; its output is appended.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> None:
        """``environment`` is all that it has; ``directory`` is where it runs, and its files are."""
        self.name = name
        self.output = directory / f"{name}.log"
        self.environment = dict(environment)
        self._arguments = list(arguments)
        self._directory = directory
        self._ready_file = directory / f"{name}.ready"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its id while it runs."""
        return self._process.pid if self._process is not None and self.runs else None

    async def start(self, *more_arguments: str) -> dict[str, Any]:
        """Start it; what it wrote to its ready file.

        Raises:
            ProcessFailed: it ended instead, or was not ready within a minute.
        """
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "booking_worker", *self._arguments, *more_arguments]
        with self.output.open("ab") as output:
            process = self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own; it is quick
                [*command, "--ready-file", str(self._ready_file)],
                env=self._whole_environment(),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready_file.exists():
            if process.poll() is not None:
                raise ProcessFailed(f"{self.name} ended while it started:\n{self._tail()}")
            if time.monotonic() > deadline:
                await self.stop()
                raise ProcessFailed(f"{self.name} did not start:\n{self._tail()}")
            await asyncio.sleep(_LOOK_SECONDS)
        facts: dict[str, Any] = orjson.loads(self._ready_file.read_bytes())
        return facts

    async def stop(self) -> None:
        """Ask it to end (SIGTERM), and return when it has. Stopping again is stopping.

        Raises:
            ProcessFailed: it had to be killed, or its exit code is not 0.
        """
        process = self._process
        if process is None:
            return
        ended = process.poll() is not None
        if not ended:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise ProcessFailed(f"{self.name} did not stop, and was killed:\n{self._tail()}")
            await asyncio.sleep(_LOOK_SECONDS)
        self._process = None
        if process.returncode:
            how = "ended by itself" if ended else "stopped"
            raise ProcessFailed(f"{self.name} {how} with {process.returncode}:\n{self._tail()}")

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), and return when it has."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _whole_environment(self) -> dict[str, str]:
        package = str(Path(booking_worker.__file__).parents[1])
        environment = dict(self.environment)
        paths = [package, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        if len(os.fsencode(self._directory)) <= _SHORT_BYTES:
            # What a killed process leaves behind goes with the directory.
            environment["TMPDIR"] = str(self._directory)
        if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
            # Compiling all of it anew takes seconds at each start; here it leaves no trace.
            environment["PYTHONPYCACHEPREFIX"] = str(self._directory / "bytecode")
        return environment

    def _tail(self) -> str:
        lines = self.output.read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-_TAIL_LINES:])
