"""Stand-in Booking, Ticket and Realtime Services: real gRPC servers over one strict ledger."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeAlias

import grpc.aio

from booking_worker.domain.errors import BookingWorkerError, InvalidSettings
from booking_worker.proto import (
    booking_pb2_grpc,
    realtime_pb2_grpc,
    sandbox_pb2_grpc,
    ticket_pb2_grpc,
)
from booking_worker.sandbox.booking_service import BookingService
from booking_worker.sandbox.control_service import ControlService
from booking_worker.sandbox.faults import Faults
from booking_worker.sandbox.ledger import DEFAULT_HOLD_SECONDS, DEFAULT_TICKETS, Ledger
from booking_worker.sandbox.realtime_service import Notices, RealtimeService
from booking_worker.sandbox.ticket_service import TicketService

Transport: TypeAlias = Literal["auto", "native", "grpcio"]

_OPTIONS: Final = (
    # Off, or a second sandbox on the same port would take half of the calls unnoticed.
    ("grpc.so_reuseport", 0),
    # pygrpc-native's own default is 1,024.
    ("grpc.max_concurrent_streams", 100_000),
)
_STOP_SECONDS: Final = 0.2


class CannotServe(BookingWorkerError):
    """The transport asked for is not installed."""


class Sandbox:
    """Serves the three stand-ins until it is stopped; may be started again.

    A port of 0 takes one that is free, and keeps it over stop and start. ``faults`` is where
    each service begins; ``booking_faults``, ``ticket_faults`` and ``realtime_faults`` may be
    changed at any time. The other settings are the ledger's.
    """

    def __init__(
        self,
        ledger_path: Path,
        *,
        host: str = "127.0.0.1",
        booking_port: int = 0,
        ticket_port: int = 0,
        realtime_port: int = 0,
        faults: Faults | None = None,
        default_tickets: int = DEFAULT_TICKETS,
        hold_seconds: float = DEFAULT_HOLD_SECONDS,
        reservations: bool = True,
        transport: Transport = "auto",
        clock: Callable[[], float] = time.time,
    ) -> None:
        first = faults or Faults()
        self.booking_faults = first.copy_for("booking")
        self.ticket_faults = first.copy_for("ticket")
        self.realtime_faults = first.copy_for("realtime")
        self.notices = Notices()
        self._ledger_path = ledger_path
        self._host = host
        self._ports = {"booking": booking_port, "ticket": ticket_port, "realtime": realtime_port}
        self._default_tickets = default_tickets
        self._hold_seconds = hold_seconds
        self._reservations = reservations
        self._transport = transport
        self._clock = clock
        self._ledger: Ledger | None = None
        self._servers: list[grpc.aio.Server] = []

    @property
    def ledger(self) -> Ledger:
        """The ledger, while it is started."""
        if self._ledger is None:
            raise RuntimeError("the sandbox is not started")
        return self._ledger

    @property
    def booking_endpoint(self) -> str:
        """Where BookingService and SandboxControl are served, once started."""
        return self._endpoint("booking")

    @property
    def ticket_endpoint(self) -> str:
        """Where TicketService is served, once started."""
        return self._endpoint("ticket")

    @property
    def realtime_endpoint(self) -> str:
        """Where RealtimeService is served, once started."""
        return self._endpoint("realtime")

    async def start(self) -> None:
        """Open the ledger and serve.

        Raises:
            LedgerInUse: another sandbox has the ledger open.
            LedgerUnusable: the ledger cannot be opened.
            InvalidSettings: a port is taken; it names the setting that chooses it.
            CannotServe: the transport is not installed.
        """
        if self._ledger is not None:
            return
        new_server = _server_maker(self._transport)
        ledger = self._ledger = Ledger(
            self._ledger_path,
            default_tickets=self._default_tickets,
            hold_seconds=self._hold_seconds,
            reservations=self._reservations,
            clock=self._clock,
        )
        try:
            booking = new_server()
            booking_pb2_grpc.add_BookingServiceServicer_to_server(
                BookingService(ledger, self.booking_faults), booking
            )
            all_faults = {
                "booking": self.booking_faults,
                "ticket": self.ticket_faults,
                "realtime": self.realtime_faults,
            }
            sandbox_pb2_grpc.add_SandboxControlServicer_to_server(
                ControlService(ledger, all_faults), booking
            )
            await self._serve("booking", booking)
            ticket = new_server()
            ticket_pb2_grpc.add_TicketServiceServicer_to_server(
                TicketService(ledger, self.ticket_faults), ticket
            )
            await self._serve("ticket", ticket)
            realtime = new_server()
            realtime_pb2_grpc.add_RealtimeServiceServicer_to_server(
                RealtimeService(self.notices, self.realtime_faults), realtime
            )
            await self._serve("realtime", realtime)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop serving, cut off what takes too long, and close the ledger."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.stop(_STOP_SECONDS)
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    async def _serve(self, service: str, server: grpc.aio.Server) -> None:
        wanted = self._ports[service]
        try:
            port = server.add_insecure_port(f"{self._host}:{wanted}")
        except RuntimeError as error:
            problem = (
                f"GRPC_{service.upper()}_SERVICE_ENDPOINT: the sandbox's {service} service cannot"
                f" listen on {self._host}:{wanted}; takes localhost:PORT with a free port"
            )
            raise InvalidSettings([problem]) from error
        self._ports[service] = port
        self._servers.append(server)
        await server.start()

    def _endpoint(self, service: str) -> str:
        port = self._ports[service]
        if not port:
            raise RuntimeError("the sandbox is not started")
        return f"{self._host}:{port}"


def _server_maker(transport: Transport) -> Callable[[], grpc.aio.Server]:
    if transport != "grpcio":
        if importlib.util.find_spec("pygrpc_native") is not None:
            native = importlib.import_module("pygrpc_native.aio")
            return lambda: native.Server(options=_OPTIONS, io_threads=1)
        if transport == "native":
            raise CannotServe("pygrpc-native is not installed: pip install pygrpc-native")
    return lambda: grpc.aio.server(options=_OPTIONS)
