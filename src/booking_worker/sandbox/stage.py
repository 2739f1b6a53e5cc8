"""Where a sale takes place: the service, its engine and the sandbox, in their own processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc.aio

from booking_worker.engine.data_dir import DataDir
from booking_worker.peers.channel import open_channel
from booking_worker.proto import admin_pb2, admin_pb2_grpc, sandbox_pb2, sandbox_pb2_grpc
from booking_worker.sandbox.audit import LedgerAudit
from booking_worker.sandbox.engine_process import EngineProcess
from booking_worker.sandbox.processes import BookingWorkerProcess, ProcessFailed

_ANSWER_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
_GONE_SECONDS: Final = 5.0
_BALANCED: Final = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.default_authority", "localhost"),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_BOOKS: Final = (
    "waiting",
    "processing",
    "awaiting_payment",
    "completed",
    "expired",
    "cancelled",
    "sold_out_items",
    "rejected",
    "failed",
    "capacity",
    "held_seats",
    "confirmed_seats",
)


class Stage:
    """A service and a sandbox in one directory, on ports of their own that they keep.

    One replica has its engine embedded; several share a server of their own. Each process can be
    killed and started again; what it had on disk is then still there. Whatever happens,
    :meth:`end` leaves nothing running.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        environment: Mapping[str, str],
        tickets: int,
        replicas: int = 1,
    ) -> None:
        """``settings`` of the service are added to ``environment``, which has no others."""
        self.directory = directory
        self.audit_log = directory / "audit.jsonl"
        self.ledger = directory / "ledger.db"
        self._data_dir = DataDir(directory / "data")
        self._engine = EngineProcess(directory / "engine") if replicas > 1 else None
        self._sandbox = BookingWorkerProcess(
            "sandbox",
            ["sandbox", "--ledger", str(self.ledger), "--tickets", str(tickets)],
            environment,
            directory,
        )
        self._services = [
            BookingWorkerProcess(
                "service" if replicas == 1 else f"service-{number}",
                ["serve"],
                {
                    **environment,
                    "GRPC_PORT": "0",
                    "HTTP_PORT": "0",
                    "METRICS_PORT": "0",
                    "DATA_DIR": str(self._data_dir.path),
                    "AUDIT_LOG": str(self.audit_log),
                    **settings,
                },
                directory,
            )
            for number in range(1, replicas + 1)
        ]
        self._next_victim = 0
        self._sandbox_ports = dict.fromkeys(("booking", "ticket", "realtime"), "0")
        self._control: grpc.aio.Channel | None = None
        self._admin: grpc.aio.Channel | None = None
        self.endpoint = ""
        """Where the service is, once it was started: all its replicas."""

    async def start(self) -> None:
        """Start all.

        Raises:
            ProcessFailed: one of them does not start; then nothing is left running.
        """
        try:
            await self.start_sandbox()
            await self.start_engine()
            await self.start_service()
        except BaseException:
            self.end()
            raise

    async def start_sandbox(self) -> None:
        """Start the sandbox, again on the ports that it had."""
        sandbox = self._sandbox
        ports = [
            word for name, port in self._sandbox_ports.items() for word in (f"--{name}-port", port)
        ]
        facts = await sandbox.start(*ports)
        for name in self._sandbox_ports:
            endpoint = str(facts[name])
            self._sandbox_ports[name] = endpoint.rpartition(":")[2]
            for service in self._services:
                service.environment[f"GRPC_{name.upper()}_SERVICE_ENDPOINT"] = endpoint
        if self._control is None:
            self._control = open_channel(str(facts["booking"]))

    async def start_engine(self) -> None:
        """Start the engine, again on the port and the data that it had, unless it is embedded."""
        if self._engine is None:
            return
        await self._engine.start()
        for service in self._services:
            service.environment.update(
                ENGINE="redis", REDIS_HOST="127.0.0.1", REDIS_PORT=str(self._engine.port)
            )

    async def start_service(self) -> None:
        """Start each replica that does not run, again on the ports and the data that it had."""
        await asyncio.gather(*(self._start(each) for each in self._services if not each.runs))
        ports = [service.environment["GRPC_PORT"] for service in self._services]
        self.endpoint = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        if self._admin is None:
            self._admin = grpc.aio.insecure_channel(self.endpoint, options=_BALANCED)

    async def _start(self, service: BookingWorkerProcess) -> None:
        facts = await service.start()
        for name in ("grpc_port", "http_port", "metrics_port"):
            service.environment[name.upper()] = str(facts[name])

    def kill_service(self) -> None:
        """End one replica as a crash would, each in its turn; its engine is left behind."""
        self._services[self._next_victim].kill()
        self._next_victim = (self._next_victim + 1) % len(self._services)

    def kill_engine(self) -> None:
        """End the engine as a crash would, if it runs."""
        if self._engine is not None:
            self._engine.kill()
            return
        # The lock is held by the server alone, so the id in its file is of no other process.
        pid = self._data_dir.server_pid()
        if pid is not None and self._data_dir.server_is_alive():
            os.kill(pid, signal.SIGKILL)

    def kill_sandbox(self) -> None:
        """End the sandbox as a crash would."""
        self._sandbox.kill()

    async def set_faults(self, service: str, faults: sandbox_pb2.Faults) -> None:
        """Give one stand-in other faults, or all when ``service`` is empty."""
        await self._steer().SetFaults(
            sandbox_pb2.SetFaultsRequest(service=service, faults=faults),
            timeout=_ANSWER_SECONDS,
            wait_for_ready=True,
        )

    async def audit(self) -> LedgerAudit:
        """What the sandbox says of its ledger."""
        said = await self._steer().Audit(
            sandbox_pb2.AuditRequest(), timeout=_ANSWER_SECONDS, wait_for_ready=True
        )
        return LedgerAudit(
            **{field.name: getattr(said, field.name) for field in said.DESCRIPTOR.fields}
        )

    async def books(self, event_id: str) -> dict[str, int] | None:
        """How many items of an event the service counts in each status, and what it has left.

        None while it does not answer.
        """
        if self._admin is None:
            return None
        stub = admin_pb2_grpc.BookingWorkerAdminStub(self._admin)
        request = admin_pb2.GetEventStatusRequest(event_id=event_id)
        try:
            said = await stub.GetEventStatus(request, timeout=_LOOK_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError:
            return None
        return {name: getattr(said, name) for name in _BOOKS}

    async def stop(self) -> None:
        """Let all end in their own way, the engine last but for the sandbox.

        Raises:
            ProcessFailed: one of them did not; nothing is left running all the same.
        """
        try:
            for channel in (self._control, self._admin):
                if channel is not None:
                    await channel.close()
            await asyncio.gather(*(service.stop() for service in self._services))
            if self._engine is not None:
                await self._engine.stop()
            if self._data_dir.path.exists() and self._data_dir.server_is_alive():
                raise ProcessFailed("the service stopped and left its engine running")
            await self._sandbox.stop()
        finally:
            self.end()

    def end(self) -> None:
        """Kill what still runs; nothing is left when it returns. Ending again is ending."""
        for service in self._services:
            service.kill()
        self._sandbox.kill()
        if self._engine is not None:
            self._engine.kill()
        if not self._data_dir.path.exists():
            return
        # Killed while it started its engine, the service may not have seen the id written yet.
        deadline = time.monotonic() + _GONE_SECONDS
        while self._data_dir.server_is_alive() and time.monotonic() < deadline:
            self.kill_engine()
            time.sleep(0.01)

    def _steer(self) -> sandbox_pb2_grpc.SandboxControlAsyncStub:
        if self._control is None:
            raise RuntimeError("the sandbox was not started")
        return sandbox_pb2_grpc.SandboxControlStub(self._control)
