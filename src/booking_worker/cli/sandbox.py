"""``booking-worker sandbox``: stand-ins of the services that the queue calls, alone."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from booking_worker.cli.options import examples
from booking_worker.cli.serve import ReadyFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from booking_worker.sandbox.server import Sandbox

EXAMPLES = examples(
    "booking-worker sandbox --tickets 500",
    "booking-worker sandbox --latency-ms 200 --error-rate 0.1 --lost-answer-rate 0.05",
)


def _port(setting: str) -> object:
    return typer.Option(
        min=0,
        max=65_535,
        metavar="PORT",
        show_default=f"of {setting}",
        help="Where it listens; 0 takes any free port.",
    )


def sandbox(
    *,
    tickets: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many an event has, unless told otherwise.")
    ] = 100,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default="DATA_DIR/sandbox.db", help="What has been sold so far."
        ),
    ] = None,
    hold_seconds: Annotated[
        float, typer.Option(min=1, metavar="N", help="How long an unpaid booking lasts.")
    ] = 1800,
    booking_port: Annotated[int | None, _port("GRPC_BOOKING_SERVICE_ENDPOINT")] = None,
    ticket_port: Annotated[int | None, _port("GRPC_TICKET_SERVICE_ENDPOINT")] = None,
    realtime_port: Annotated[int | None, _port("GRPC_REALTIME_SERVICE_ENDPOINT")] = None,
    latency_ms: Annotated[
        float, typer.Option(min=0, metavar="N", help="How long a call takes, on average.")
    ] = 0,
    error_rate: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="How many calls fail before anything is done."
        ),
    ] = 0,
    lost_answer_rate: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="How many are done, but never answered."),
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed fails the same calls.")] = 0,
    ready_file: ReadyFile = None,
) -> None:
    """Run stand-ins of the services that it calls, alone.

    A Booking, a Ticket and a Realtime Service, over one strict ledger, listen where the
    settings expect them, refuse what would oversell, and fail as often as told.
    `booking-worker serve --sandbox` runs them beside the service.
    """
    import uvloop

    from booking_worker.cli.output import CommandFailed, write_ready_file
    from booking_worker.config import load
    from booking_worker.domain.errors import BookingWorkerError, InvalidSettings
    from booking_worker.sandbox.faults import Faults
    from booking_worker.sandbox.server import Sandbox

    settings = load()
    path = ledger or settings.data_dir / "sandbox.db"

    def port(given: int | None, endpoint: str) -> int:
        if given is not None:
            return given
        last = endpoint.rpartition(":")[2]
        return int(last) if last.isdigit() else 0

    stand_ins = Sandbox(
        path,
        booking_port=port(booking_port, settings.grpc_booking_service_endpoint),
        ticket_port=port(ticket_port, settings.grpc_ticket_service_endpoint),
        realtime_port=port(realtime_port, settings.grpc_realtime_service_endpoint),
        faults=Faults(latency_ms, error_rate, lost_answer_rate, seed=seed),
        default_tickets=tickets,
        hold_seconds=hold_seconds,
    )

    def on_ready() -> None:
        endpoints = {
            "booking": stand_ins.booking_endpoint,
            "ticket": stand_ins.ticket_endpoint,
            "realtime": stand_ins.realtime_endpoint,
        }
        typer.echo("The sandbox is ready; Ctrl-C stops it.\n")
        for name, endpoint in endpoints.items():
            typer.echo(f"  {name:9}{endpoint}")
        typer.echo(f"  {'ledger':9}{path.absolute()}\n")
        if ready_file is not None:
            write_ready_file(ready_file, {"pid": os.getpid(), **endpoints})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(stand_ins, on_ready))
        except BookingWorkerError as error:
            advice = "Choose others: --ledger, --booking-port, --ticket-port, --realtime-port."
            code = 2 if isinstance(error, InvalidSettings) else 1
            raise CommandFailed(str(error), advice, code) from None


async def _run(stand_ins: Sandbox, on_ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stand_ins.start()
    try:
        on_ready()
        await stop.wait()
    finally:
        await stand_ins.stop()
