"""A sale by ``booking-worker serve`` itself, with the engine of its own that it brings."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc.aio

from booking_worker.engine.data_dir import DataDir
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.proto import booking_worker_pb2_grpc
from booking_worker.sandbox.processes import BookingWorkerProcess
from tests.support import queue_audit
from tests.support.replica import Replica
from tests.support.server import free_port
from tests.support.shop import Shop
from tests.support.wait import wait_until

_GONE_SECONDS: Final = 5


class Served(Replica):
    """The command's process; may be killed and started again, on the ports that it had."""

    def __init__(self, process: BookingWorkerProcess, facts: Mapping[str, Any]) -> None:
        ports = tuple(facts[f"{name}_port"] for name in ("grpc", "http", "metrics"))
        super().__init__("service", process, ports, process.output)  # type: ignore[arg-type]
        self._popen = process._process
        self.pids: list[int] = facts.get("pids", [])
        """Of its processes, where it has several."""

    @property
    def is_alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def terminate(self) -> None:
        assert self._popen is not None
        self._popen.terminate()

    async def kill(self) -> None:
        if self._popen is not None:
            self._popen.kill()
        await self._gone()

    async def ended(self) -> int:
        await self._gone()
        assert self._popen is not None
        code = self._popen.wait()
        self.process._process = None
        return code

    async def _gone(self) -> None:
        await wait_until(lambda: not self.is_alive, timeout=20)
        await self.channel.close()

    async def health(self) -> dict[str, Any]:
        """What /healthz answers."""
        answer: dict[str, Any] = json.loads(await self._page(self.http_port, "/healthz"))
        return answer

    async def ready(self) -> int:
        """What /readyz answers."""

        def ask() -> int:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{self.http_port}/readyz", timeout=5
                ) as answer:
                    code: int = answer.status
                    return code
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        return await asyncio.to_thread(ask)


class ServedShop(Shop):
    """A shop whose one service is the command, in processes that can be killed."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        tickets: int,
        arguments: Sequence[str] = ("serve",),
    ) -> None:
        self._data_dir = DataDir(directory / "data")
        super().__init__(EmbeddedEngine(directory / "data"), directory, tickets)
        self._process: BookingWorkerProcess | None = None
        self._arguments = arguments
        self._environment = dict(environment)

    async def serve(self, **settings: object) -> Served:
        """Start the service, again with the settings and the ports that it had."""
        if self._process is None:
            sandbox = self.sandbox
            given = {
                "DATA_DIR": self._data_dir.path,
                "GRPC_PORT": free_port(),
                "HTTP_PORT": free_port(),
                "METRICS_PORT": free_port(),
                "GRPC_BOOKING_SERVICE_ENDPOINT": sandbox.booking_endpoint,
                "GRPC_TICKET_SERVICE_ENDPOINT": sandbox.ticket_endpoint,
                "GRPC_REALTIME_SERVICE_ENDPOINT": sandbox.realtime_endpoint,
                "AUDIT_LOG": self.directory / "service.audit",
                "PAYMENT_TIMEOUT_SECONDS": 60,
                **settings,
            }
            environment = self._environment | {name: str(value) for name, value in given.items()}
            self._process = BookingWorkerProcess(
                "service", self._arguments, environment, self.directory
            )
        facts = await self._process.start()
        service = Served(self._process, facts)
        self.replicas.append(service)
        # It may not have been there a moment ago, which this channel must not remember.
        service.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{service.grpc_port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        service.stub = booking_worker_pb2_grpc.BookingWorkerServiceStub(service.channel)
        return service

    @property
    def engine_pid(self) -> int:
        """The engine's process."""
        pid = self._data_dir.server_pid()
        assert pid is not None
        return pid

    @property
    def engine_runs(self) -> bool:
        """Whether the engine's process is there."""
        return self._data_dir.path.exists() and self._data_dir.server_is_alive()

    async def kept(self) -> None:
        # In this order: the engine ends with its service.
        await queue_audit.audit(self.client, self.queue)
        if broken := await self.broken():
            raise AssertionError("\n".join(broken))

    async def end(self) -> None:
        for service in self.replicas:
            if service.is_alive:
                await service.kill()
            await service.channel.close()
        deadline = time.monotonic() + _GONE_SECONDS
        while self.engine_runs and time.monotonic() < deadline:
            if (pid := self._data_dir.server_pid()) is not None:
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)
        self.replicas.clear()
        await super().end()
