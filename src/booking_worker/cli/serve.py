"""``booking-worker serve``: the service, until it is told to stop."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from booking_worker.cli.options import examples

if TYPE_CHECKING:
    from booking_worker.app import Application

ReadyFile = Annotated[
    Path | None,
    typer.Option(
        "--ready-file",
        metavar="FILE",
        show_default=False,
        help="Write the process id and the ports there, as JSON, once ready.",
    ),
]
EXAMPLES = examples(
    "booking-worker serve --sandbox                # everything it needs, on this machine",
    "GRPC_PORT=6000 LOG_FORMAT=console booking-worker serve --sandbox",
    "GRPC_BOOKING_SERVICE_ENDPOINT=bookings:50058 booking-worker serve",
)


def serve(
    *,
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox", help="Bring stand-ins of the services that it calls, too."),
    ] = False,
    ready_file: ReadyFile = None,
) -> None:
    """Run the service until it is told to stop.

    SIGTERM or Ctrl-C lets it finish what it has in hand; a second one ends it at once.
    Nothing is lost either way. `booking-worker config` lists the settings.
    """
    from booking_worker import app
    from booking_worker.cli.output import write_ready_file
    from booking_worker.config import load

    settings = load()

    def on_ready(application: Application) -> None:
        # Standard output is the audit log's, unless a person reads it.
        to_stderr = settings.audit_log == "stdout" and not sys.stdout.isatty()
        typer.echo(_welcome(application, sandbox=sandbox), err=to_stderr)
        if ready_file is not None:
            write_ready_file(ready_file, _facts(application))

    raise typer.Exit(app.run(settings, sandbox=sandbox, on_ready=on_ready))


def _facts(application: Application) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "grpc_port": application.grpc_port,
        "http_port": application.http_port,
        "metrics_port": application.metrics_port,
        "data_dir": str(application.settings.data_dir.absolute()),
    }


def _welcome(application: Application, *, sandbox: bool) -> str:
    settings = application.settings
    grpc, http = application.grpc_port, application.http_port
    default_port = type(settings).model_fields["grpc_port"].default
    at = "" if grpc == default_port else f" --address localhost:{grpc}"
    tls = " (TLS)" if settings.grpc_tls_cert else ""
    lines = [
        "",
        "booking-worker is ready.",
        "",
        f"  gRPC       localhost:{grpc}{tls}, with reflection",
        f"  health     http://localhost:{http}/healthz, /livez and /readyz",
    ]
    if application.metrics_port is not None:
        lines.append(f"  metrics    http://localhost:{application.metrics_port}/metrics")
    lines += [
        f"  data       {settings.data_dir.absolute()}, {application.engine_description}",
        f"  audit log  {settings.audit_log}",
        f"  booking    {settings.grpc_booking_service_endpoint}",
        f"  tickets    {settings.grpc_ticket_service_endpoint or 'not configured'}",
        f"  realtime   {settings.grpc_realtime_service_endpoint or 'not configured'}",
    ]
    if sandbox:
        lines.append("             (the last three are the sandbox's stand-ins)")
    plaintext = "" if settings.grpc_tls_cert else " -plaintext"
    lines += [
        "",
        "Try in another terminal:",
        "",
        f"  grpcurl{plaintext} -d '{_JOIN}' \\",
        f"    localhost:{grpc} booking_worker.v1.BookingWorkerService/EnqueueBooking",
        f"  booking-worker queue status{at}",
        f"  booking-worker queue list concert{at}",
        f"  curl http://localhost:{http}/healthz",
        "  booking-worker demo --buyers 2000 --tickets 100    # a whole sale, on its own",
        "",
        "Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)


_JOIN = '{"user_id": "ann", "event_id": "concert", "seat_count": 2}'
