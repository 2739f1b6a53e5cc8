"""What the command makes of a sale; that a sale is held is shown in tests/acceptance."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from booking_worker.cli import demo
from booking_worker.config import Settings
from booking_worker.sandbox.buyers import Progress
from booking_worker.sandbox.demo import Moment, Sale
from booking_worker.sandbox.processes import ProcessFailed
from booking_worker.sandbox.promises import Broken
from booking_worker.sandbox.report import Percentiles, Report
from tests.unit.cli.conftest import Command

REPORT = Report(
    buyers=10,
    tickets=4,
    joined=9,
    admitted=3,
    sold=4,
    oversold=0,
    lost=0,
    duplicate_bookings=0,
    order_inversions=0,
    completed=2,
    expired=1,
    cancelled=1,
    sold_out=5,
    rejected=0,
    failed=0,
    refused=1,
    joins_per_second=123.4,
    admission_seconds=Percentiles(0.1, 0.2, 0.3),
    seconds=5.5,
    seed=7,
    chaos=None,
    broken=(),
)
ASKED_FOR = {
    "buyers",
    "tickets",
    "joined",
    "sold",
    "oversold",
    "lost",
    "duplicate_bookings",
    "order_inversions",
    "completed",
    "expired",
    "cancelled",
    "sold_out",
    "failed",
    "joins_per_second",
    "seconds",
}


class Held:
    """What a sale was asked to be, and where."""

    sale: Sale
    directory: Path
    environment: Mapping[str, str]


@pytest.fixture
def hold(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Held]:
    """Makes every sale end like this, after these moments."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("demos")))

    def will(outcome: Report | Exception, *moments: Moment) -> Held:
        held = Held()

        async def hold_sale(
            sale: Sale, directory: Path, environment: Mapping[str, str], watch: Callable[..., None]
        ) -> Report:
            held.sale, held.directory, held.environment = sale, directory, environment
            assert directory.is_dir()
            for moment in moments:
                watch(moment)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr("booking_worker.sandbox.demo.hold_sale", hold_sale)
        return held

    return will


def test_json_has_what_scripts_ask_for_and_nothing_stands_beside_it(
    command: Command, hold: Callable[..., Held]
):
    hold(REPORT, Moment("starting"))
    ran = command("demo", "--json")
    assert ran.code == 0
    told: dict[str, Any] = ran.json
    assert set(told) >= ASKED_FOR
    assert told["admission_seconds"] == {"p50": 0.1, "p95": 0.2, "p99": 0.3}
    assert told["broken"] == []
    assert ran.err == ""


def test_a_broken_promise_is_an_exit_code_of_1_and_the_tracks_are_kept(
    command: Command, hold: Callable[..., Held]
):
    held = hold(replace(REPORT, oversold=2, broken=(Broken("no oversell", 2, "6 of 4"),)))
    ran = command("demo")
    assert ran.code == 1
    assert "BROKEN: no oversell (2x): 6 of 4" in ran.out
    assert str(held.directory) in ran.out
    assert held.directory.is_dir()
    again = command("demo", "--json")
    assert again.code == 1
    assert again.json["broken"] == [{"promise": "no oversell", "cases": 2, "example": "6 of 4"}]
    assert Path(again.json["directory"]).is_dir()


def test_a_sale_that_went_well_leaves_nothing_behind(command: Command, hold: Callable[..., Held]):
    held = hold(REPORT)
    ran = command("demo")
    assert ran.code == 0
    assert ran.out.endswith("Every promise was kept.\n")
    assert "tickets sold  4 of 4" in ran.out
    assert not held.directory.exists()


def test_a_process_that_fails_is_told_with_where_its_output_is(
    command: Command, hold: Callable[..., Held]
):
    held = hold(ProcessFailed("service ended while it started:\nno room"))
    ran = command("demo", "--json")
    assert ran.code == 1
    assert ran.out == ""
    assert "no room" in ran.err
    assert str(held.directory) in ran.err


def test_a_sale_that_is_told_to_stop_ends_as_told_and_leaves_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Path] = []

    async def hold_sale(_sale: Sale, directory: Path, *_: object) -> Report:
        seen.append(directory)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("booking_worker.sandbox.demo.hold_sale", hold_sale)
    assert command("demo").code == 128 + signal.SIGTERM
    assert not seen[0].exists()


def test_options_make_the_sale_and_other_settings_do_not(
    command: Command, hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("QUEUE_MAX_SIZE", "1")
    monkeypatch.setenv("grpc_port", "1")
    held = hold(REPORT)
    command("demo", "--buyers=5", "--tickets=3", "--seed=9", "--workers=4", "--chaos")
    assert held.sale == Sale(buyers=5, tickets=3, seed=9, workers=4, chaos=True)
    assert not {name for name in held.environment if name.lower() in Settings.model_fields}
    assert "PATH" in held.environment


CROWD = Progress(seconds=3.2, buyers=10, joined=8, finished=1, statuses={}, calls=9, failures={})
BOOKS = {
    "waiting": 5,
    "processing": 1,
    "awaiting_payment": 2,
    "held_seats": 3,
    "confirmed_seats": 1,
}


def test_where_there_is_no_terminal_a_line_tells_how_it_goes(
    command: Command, hold: Callable[..., Held]
):
    hold(
        REPORT,
        Moment("starting"),
        Moment("selling", CROWD, BOOKS, {"service_killed": 2}),
        Moment("settling", CROWD, None),
    )
    lines = command("demo").out.splitlines()
    assert lines[:3] == [
        "starting ...",
        "   3 s  8 joined, 5 waiting, 1 processing, 2 holding, service killed 2x",
        "   3 s  8 joined, the service is down",
    ]


def test_lines_of_one_phase_come_now_and_then(capsys: pytest.CaptureFixture[str]):
    watch = demo._lines()
    for _ in range(5):
        watch(Moment("selling", CROWD, BOOKS))
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("books", [BOOKS, None])
def test_a_terminal_gets_a_view_that_fits(books: Mapping[str, int] | None):
    console = Console(width=80, record=True, file=StringIO())
    console.print(demo._view(Sale(10, 4), Moment("selling", CROWD, books, {"service_killed": 2})))
    text = console.export_text()
    assert "10 buyers, 4 tickets, 3 s" in text
    assert "service killed 2x" in text
    assert ("the service is down" in text) == (books is None)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
