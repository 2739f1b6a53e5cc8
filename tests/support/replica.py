"""Replicas of the service on one engine, each a real process: to be killed, or stopped."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import urllib.request
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import grpc.aio

from booking_worker.proto import booking_worker_pb2_grpc
from tests.support import replica_process
from tests.support.wait import wait_until

_ROOT = Path(__file__).parents[2]
_MODULE = replica_process.__name__

START_SECONDS = 20
STOP_SECONDS = 20


def _forks() -> Any:
    """Where processes come from that have the service imported: they start in no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_MODULE])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


class Replica:
    """One process of the service, with a client of it."""

    def __init__(self, name: str, process: Any, ports: tuple[int, int, int], log: Path) -> None:
        self.name = name
        self.process = process
        self.grpc_port, self.http_port, self.metrics_port = ports
        self.log = log
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        self.stub = booking_worker_pb2_grpc.BookingWorkerServiceStub(self.channel)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        alive: bool = self.process.is_alive()
        return alive

    @classmethod
    async def start(
        cls,
        name: str,
        directory: Path,
        settings: dict[str, Any],
        without: tuple[str, ...] = (),
        *,
        moves_clock: bool = False,
    ) -> Replica:
        """Start one; it is ready."""
        log = directory / f"{name}.log"
        context = _forks()
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=replica_process.serve,
            args=(theirs, settings, without, log),
            kwargs={"moves_clock": moves_clock},
            daemon=True,
        )
        process.start()
        theirs.close()
        try:
            await wait_until(ours.poll, timeout=START_SECONDS)
            ports = ours.recv()
        except (AssertionError, EOFError) as error:
            process.kill()
            process.join()
            told = log.read_text()[-4000:] if log.exists() else "nothing"
            raise AssertionError(f"replica {name} did not start; it says:\n{told}") from error
        finally:
            ours.close()
        return cls(name, process, ports, log)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        await self._gone()

    def freeze(self) -> None:
        """Let it do nothing until :meth:`thaw`."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if no time had passed."""
        os.kill(self.process.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.process.terminate()

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        await self._gone()
        code: int = self.process.exitcode
        return code

    async def stop(self) -> int:
        """Ask it to end, and wait for its exit code."""
        if self.is_alive:
            self.terminate()
        return await self.ended()

    async def _gone(self) -> None:
        await wait_until(lambda: not self.is_alive, timeout=STOP_SECONDS)
        self.process.join()
        await self.channel.close()

    async def metric(self, name: str) -> float:
        """The sum of all samples of a metric, by its own page."""
        text = await self._page(self.metrics_port, "/metrics")
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        assert found, f"no {name} among the metrics"
        return sum(map(float, found))

    async def _page(self, port: int, path: str) -> str:
        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text

        return await asyncio.to_thread(get)

    def logged(self, words: str) -> int:
        """How many lines of its log contain the words."""
        return sum(words in line for line in self.log.read_text().splitlines())
