"""How fast the line is worked off: from waiting to held, the booking and the message included."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.positions import fill
from bench.report import Goal, Report, medians

ITEMS: Final = 20_000
SLOTS: Final = 100
ROUNDS: Final = 3
LEAST_PER_SECOND: Final = 3_000.0
LEAST: Final = 0.60
PATIENCE_SECONDS: Final = 120.0
MESSAGE: Final = "booking:awaiting_payment"


def subject_round(directory: Path, items: int) -> dict[str, Any]:
    """The service, from the first admission until the last client was told."""
    settings = {"WORKER_POOL_SIZE": SLOTS, "CAPACITY_REFRESH_SECONDS": 1}
    with (
        # One hold while the line fills: so it is kept, and nobody more is admitted.
        processes.sandbox(directory, tickets=2) as peers,
        processes.service(directory, peers, settings) as service,
    ):
        fill(directory, service, items + 1)
        wait_until_told(peers, 1)
        before = service.audit_log.stat().st_size
        peers.set_tickets("sale", 2 * (items + 1))
        told_at = wait_until_told(peers, items + 1)
        first, held = admissions(service.audit_log, before, items)
    return {
        "seconds": told_at - first,
        "per_second": round(items / (told_at - first), 1),
        "until_held_per_second": round(items / (held - first), 1),
    }


def wait_until_told(peers: processes.Sandbox, number: int) -> float:
    """When so many users had been told that they hold a booking, Unix time.

    Raises:
        BenchmarkError: that does not happen.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while (told := peers.told(MESSAGE)) < number:
        if time.monotonic() > until:
            raise processes.BenchmarkError(f"only {told} of {number} were told that they hold")
        time.sleep(0.01)
    return time.time()


def admissions(audit_log: Path, start: int, items: int) -> tuple[float, float]:
    """When the first was admitted and when the last was held, from the audit log, Unix time.

    Raises:
        BenchmarkError: not all were held.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        with audit_log.open() as file:
            file.seek(start)
            lines = [json.loads(line) for line in file if line.endswith("\n")]
        admitted = [line["at_ms"] for line in lines if line["to"] == "processing"]
        held = [line["at_ms"] for line in lines if line["to"] == "awaiting_payment"]
        if len(held) == items:
            return min(admitted) / 1000, max(held) / 1000
        if time.monotonic() > until:
            raise processes.BenchmarkError(f"{len(held)} of {items} were held")
        time.sleep(0.1)


def reference_round(directory: Path, items: int) -> dict[str, Any]:
    """The same two calls to the same peers, and nothing else."""
    with processes.sandbox(directory, tickets=2 * items) as peers:
        found: dict[str, Any] = processes.run_module(
            "bench.bare_calls",
            *("--booking", peers.booking, "--realtime", peers.realtime),
            *("--items", str(items), "--slots", str(SLOTS)),
        )
        return found


def run(scale: float) -> Report:
    """See the module."""
    items = int(ITEMS * scale)
    references: list[dict[str, Any]] = []
    subjects: list[dict[str, Any]] = []
    with processes.work_dir() as directory:
        for number in range(ROUNDS):
            for name, measure, found in (
                ("bare", reference_round, references),
                ("service", subject_round, subjects),
            ):
                own = directory / f"{name}-{number}"
                own.mkdir()
                found.append(measure(own, items))
    rows = [
        medians("bare calls", references, ("per_second",)),
        medians("holds", subjects, ("per_second", "until_held_per_second")),
    ]
    rate = rows[1]["per_second"]
    ratio = rate / rows[0]["per_second"]
    met = ratio >= LEAST or rate >= LEAST_PER_SECOND
    goal = f"holds over the bare calls, at least {LEAST} (or {LEAST_PER_SECOND:,.0f} a second)"
    return Report(
        "holds",
        rows,
        {"ratio": ratio},
        [Goal(goal, ratio, met)],
        [f"{items:,} items, {SLOTS} slots, peers in their own process; medians of {ROUNDS} runs"],
    )
