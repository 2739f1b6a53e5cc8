"""``booking-worker demo``: a whole sale in one command, audited."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from booking_worker.cli.options import Json, examples

if TYPE_CHECKING:
    from rich.console import RenderableType

    from booking_worker.sandbox.demo import Moment, Sale, Watcher
    from booking_worker.sandbox.report import Report

EXAMPLES = examples(
    "booking-worker demo",
    "booking-worker demo --buyers 20000 --tickets 1000",
    "booking-worker demo --chaos                     # and all kinds of things go wrong",
    "booking-worker demo --replicas 5 --chaos        # five services, one killed after another",
    "booking-worker demo --seed 7 --json | jq .oversold",
)

_LINE_SECONDS: Final = 2.0
_WIDTH: Final = 40


def demo(
    *,
    buyers: Annotated[int, typer.Option(min=1, metavar="N", help="How many want to buy.")] = 2000,
    tickets: Annotated[int, typer.Option(min=0, metavar="N", help="How many there are.")] = 100,
    chaos: Annotated[
        bool,
        typer.Option(
            "--chaos",
            help="Make the peers fail, and kill -9 the service, its engine and the peers.",
        ),
    ] = False,
    replicas: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Services that share the work and one engine.",
        ),
    ] = 1,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Bookings that each works on at once.")
    ] = 20,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="another each time", help="Same seed, same buyers."),
    ] = None,
    json: Json = False,
) -> None:
    """Hold a whole sale and audit it: is every promise kept?

    The service, its engine and stand-ins of the services that it calls run in processes of
    their own; the buyers come over gRPC. Some pay, some don't, some give up, pay late or join
    twice. Then the audit log and the ledger are held against what the buyers were told.
    Exits 1 if a promise was broken.
    """
    from secrets import randbelow

    from booking_worker.cli.output import CommandFailed, print_json
    from booking_worker.config import Settings
    from booking_worker.domain.errors import BookingWorkerError
    from booking_worker.sandbox.demo import Sale

    sale = Sale(
        buyers=buyers,
        tickets=tickets,
        seed=randbelow(1_000_000) if seed is None else seed,
        workers=workers,
        chaos=chaos,
        replicas=replicas,
    )
    # The sale has settings of its own; what else is set here must not change it.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in Settings.model_fields
    }
    directory = Path(tempfile.mkdtemp(prefix="booking-worker-demo-"))
    kept = False
    try:
        with _watcher(sale, json=json) as watch:
            report = _run_until_told_to_stop(sale, directory, environment, watch)
        kept = not report.kept
    except BookingWorkerError as error:
        kept = True
        raise CommandFailed(str(error), f"All output is in {directory}.") from None
    except typer.Exit:
        raise
    except Exception:
        kept = True
        typer.echo(f"All output is in {directory}.", err=True)
        raise
    finally:
        if not kept:
            shutil.rmtree(directory, ignore_errors=True)
    if json:
        print_json({**report.as_dict(), "directory": str(directory) if kept else None})
    else:
        _print_report(report, directory)
    if not report.kept:
        raise typer.Exit(1)


def _run_until_told_to_stop(
    sale: Sale, directory: Path, environment: dict[str, str], watch: Watcher
) -> Report:
    """Run the sale; SIGINT, SIGTERM and SIGHUP end it, and all that it started, first."""
    import uvloop

    from booking_worker.sandbox.demo import hold_sale
    from booking_worker.telemetry.logs import configure

    # Standard output is the report's alone, also while the engine of a chaos comes back.
    configure("error", "console")
    told: list[int] = []

    async def run() -> Report:
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this is not None  # noqa: S101 - we are in it

        def stop(number: int) -> None:
            told.append(number)
            this.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)
        return await hold_sale(sale, directory, environment, watch)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(run())
        except asyncio.CancelledError:
            raise typer.Exit(128 + told[0]) from None


# --- while it goes on -------------------------------------------------------------------------


@contextmanager
def _watcher(sale: Sale, *, json: bool) -> Iterator[Watcher]:
    """What shows the sale as it goes: a live view on a terminal, else a line now and then."""
    if json:
        yield lambda _: None
    elif sys.stdout.isatty():
        from rich.live import Live

        with Live(refresh_per_second=8, transient=True) as live:
            yield lambda moment: live.update(_view(sale, moment))
    else:
        yield _lines()


def _lines() -> Callable[[Moment], None]:
    last = ("", 0.0)

    def watch(moment: Moment) -> None:
        nonlocal last
        now = time.monotonic()
        if moment.phase != last[0] or now - last[1] >= _LINE_SECONDS:
            last = (moment.phase, now)
            typer.echo(_line(moment))
            sys.stdout.flush()

    return watch


def _line(moment: Moment) -> str:
    if moment.crowd is None:
        return f"{moment.phase} ..."
    parts = [f"{moment.crowd.seconds:4.0f} s  {moment.crowd.joined} joined"]
    if moment.books is None:
        parts.append("the service is down")
    else:
        parts += [f"{number} {name}" for name, number in _counts(moment).items() if number]
    return ", ".join([*parts, *_blows(moment)])


def _counts(moment: Moment) -> dict[str, int]:
    books = moment.books or {}
    names = {
        "waiting": "waiting",
        "processing": "processing",
        "holding": "awaiting_payment",
        "completed": "completed",
        "expired": "expired",
        "cancelled": "cancelled",
        "sold out": "sold_out_items",
        "rejected": "rejected",
        "failed": "failed",
    }
    return {name: books.get(field, 0) for name, field in names.items()}


def _blows(moment: Moment) -> list[str]:
    return [f"{name.replace('_', ' ')} {times}x" for name, times in (moment.blows or {}).items()]


def _view(sale: Sale, moment: Moment) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    if moment.crowd is None:
        return Text(f"{moment.phase} ...")
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column(width=_WIDTH)
    title = f"{sale.buyers} buyers, {sale.tickets} tickets, {moment.crowd.seconds:.0f} s"
    grid.add_row("joined", str(moment.crowd.joined), _bar(moment.crowd.joined, sale.buyers))
    if moment.books is None:
        grid.add_row("the service is down", "", "")
    for name, number in _counts(moment).items() if moment.books else ():
        grid.add_row(name, str(number), _bar(number, sale.buyers))
    books = moment.books or {}
    for name, field in (("seats held", "held_seats"), ("seats sold", "confirmed_seats")):
        grid.add_row(name, str(books.get(field, 0)), _bar(books.get(field, 0), sale.tickets))
    outer = Table.grid()
    outer.add_row(Text(title, style="bold"))
    outer.add_row(grid)
    outer.add_row(Text(", ".join(_blows(moment)), style="dim"))
    return outer


def _bar(part: int, whole: int) -> str:
    filled = round(_WIDTH * min(part, whole) / whole) if whole else 0
    return "━" * filled


# --- afterwards -------------------------------------------------------------------------------


def _print_report(report: Report, directory: Path) -> None:
    from booking_worker.cli.output import print_facts

    typer.echo()
    print_facts(
        {
            "buyers": f"{report.buyers}, of whom {report.joined} joined"
            f" at {report.joins_per_second:g} joins a second, {report.refused} were refused",
            "admitted": f"{report.admitted} {_admission(report)}",
            "paid": report.completed,
            "expired": report.expired,
            "cancelled": report.cancelled,
            "sold out": report.sold_out,
            "rejected": report.rejected,
            "failed": report.failed,
            "tickets sold": f"{report.sold} of {report.tickets}",
            "seconds": report.seconds,
            "seed": report.seed,
            "chaos": ", ".join(
                f"{name.replace('_', ' ')} {times}x" for name, times in (report.chaos or {}).items()
            ),
        }
    )
    typer.echo()
    print_facts(
        {
            "oversold": report.oversold,
            "lost items": report.lost,
            "double bookings": report.duplicate_bookings,
            "order inversions": report.order_inversions,
        }
    )
    typer.echo()
    if report.kept:
        typer.secho("Every promise was kept.", fg=typer.colors.GREEN)
        return
    for broken in report.broken:
        typer.secho(
            f"BROKEN: {broken.promise} ({broken.cases}x): {broken.example}", fg=typer.colors.RED
        )
    typer.echo(f"The ledger, the audit log and all output are in {directory}.")


def _admission(report: Report) -> str:
    took = report.admission_seconds
    if took is None:
        return ""
    return f"(half within {took.p50:g} s, 95% {took.p95:g} s, 99% {took.p99:g} s of joining)"
