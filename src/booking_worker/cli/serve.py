"""``booking-worker serve``: the service, until it is told to stop."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from booking_worker.cli.options import examples

if TYPE_CHECKING:
    from booking_worker.app import Application
    from booking_worker.config import Settings
    from booking_worker.sandbox.server import Sandbox
    from booking_worker.supervisor.supervisor import Supervisor

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
    "booking-worker serve --processes 4            # on four cores",
)


def serve(
    *,
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox", help="Bring stand-ins of the services that it calls, too."),
    ] = False,
    processes: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="How many processes share the work and the ports."),
    ] = 1,
    ready_file: ReadyFile = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """Run the service until it is told to stop.

    SIGTERM or Ctrl-C lets it finish what it has in hand; a second one ends it at once.
    Nothing is lost either way. `booking-worker config` lists the settings.

    With --processes, WORKER_POOL_SIZE is what all of them work on together, and health and
    metrics speak for all. A connection stays with one process: a gateway should open several.
    One that ends is started again; kill -TERM it to have it replaced.
    """
    from booking_worker.cli.output import write_ready_file
    from booking_worker.config import load

    if child:
        from booking_worker.supervisor import member

        raise typer.Exit(member.run())
    settings = load()

    def on_ready(service: Application | Supervisor, pids: Sequence[int] = ()) -> None:
        # Standard output is the audit log's, unless a person reads it.
        to_stderr = settings.audit_log == "stdout" and not sys.stdout.isatty()
        typer.echo(_welcome(service, processes, sandbox=sandbox), err=to_stderr)
        if ready_file is not None:
            write_ready_file(ready_file, _facts(service) | ({"pids": pids} if pids else {}))

    if processes == 1:
        from booking_worker import app

        raise typer.Exit(app.run(settings, sandbox=sandbox, on_ready=on_ready))
    from booking_worker.supervisor import supervisor

    raise typer.Exit(
        supervisor.run(
            settings,
            processes,
            sandbox=_sandbox(settings) if sandbox else None,
            on_ready=lambda service: on_ready(service, service.pids),
        )
    )


def _sandbox(settings: Settings) -> Sandbox:
    # Not above: what the sandbox needs takes more memory than all else of a supervisor.
    from booking_worker.config.sandboxes import sandbox_of

    return sandbox_of(settings)


def _facts(service: Application | Supervisor) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "grpc_port": service.grpc_port,
        "http_port": service.http_port,
        "metrics_port": service.metrics_port,
        "data_dir": str(service.settings.data_dir.absolute()),
    }


def _welcome(service: Application | Supervisor, processes: int, *, sandbox: bool) -> str:
    settings = service.settings
    grpc, http = service.grpc_port, service.http_port
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
    if service.metrics_port is not None:
        lines.append(f"  metrics    http://localhost:{service.metrics_port}/metrics")
    if processes > 1:
        workers = settings.worker_pool_size
        lines.append(f"  processes  {processes}, with {workers} workers between them")
    lines += [
        f"  engine     {service.engine_description}",
        f"  audit log  {settings.audit_log}",
        f"  booking    {settings.grpc_booking_service_endpoint}",
        f"  tickets    {settings.grpc_ticket_service_endpoint or 'not configured'}",
        f"  realtime   {settings.grpc_realtime_service_endpoint or 'not configured'}",
    ]
    if sandbox:
        lines.append("             (the last three are the sandbox's stand-ins)")
    command = _called_as()
    plaintext = "" if settings.grpc_tls_cert else " -plaintext"
    lines += [
        "",
        "Try in another terminal:",
        "",
        *([] if tls else _join_in_python(grpc)),
        f"  {command} queue status{at}",
        f"  {command} queue list concert{at}",
        f"  {command} check{at}",
        f"  {command} demo --buyers 2000 --tickets 100    # a whole sale, on its own",
        "",
        "Where you have grpcurl:",
        "",
        f"  grpcurl{plaintext} -d '{_JOIN}' \\",
        f"    localhost:{grpc} booking_worker.v1.BookingWorkerService/EnqueueBooking",
        "",
        "Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)


def _called_as() -> str:
    """What to type for `booking-worker` in another terminal, in the same directory."""
    # scripts/dev.sh sets this: in a checkout the command itself is on nobody's PATH.
    if told := os.environ.get("BOOKING_WORKER_CALLED_AS"):
        return told
    program = Path(sys.argv[0])
    if program.name != "booking-worker":
        return f"{shlex.quote(_near(Path(sys.executable)))} -m booking_worker"
    found = shutil.which("booking-worker")
    if found and program.exists() and program.samefile(found):
        return "booking-worker"
    return shlex.quote(_near(program))


def _near(program: Path) -> str:
    """How to call the program from here: a short path where it is below here."""
    path = program.absolute()
    return f"./{path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else str(path)


def _join_in_python(port: int) -> list[str]:
    """A command that joins and needs nothing that is not here already."""
    # Lines are broken inside parentheses alone: elsewhere Python minds how they are indented.
    python = shlex.quote(_near(Path(sys.executable)))
    return [
        f"  {python} -c 'import grpc; from booking_worker.proto import (",
        "    booking_worker_pb2 as pb, booking_worker_pb2_grpc as rpc); print(",
        f'    rpc.BookingWorkerServiceStub(grpc.insecure_channel("localhost:{port}"))',
        "    .EnqueueBooking(pb.EnqueueBookingRequest(",
        '    user_id="ann", event_id="concert", seat_count=2)))\'',
    ]


_JOIN = '{"user_id": "ann", "event_id": "concert", "seat_count": 2}'
