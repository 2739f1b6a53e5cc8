"""How many joins: unary and in batches, each durable before it is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bench import processes, requests
from bench.report import Report, at_least, at_most, medians, paired_ratio
from booking_worker.proto import booking_worker_pb2 as pb

USERS: Final = 100_000
BATCH: Final = 100
ROUNDS: Final = 5
TICKETS: Final = 10
LEAST: Final = 0.38
LEAST_OF_SCRIPT: Final = 0.40
MOST_P99_MS: Final = 60.0
# So many calls of 100 under way that the server never waits for the load.
BATCH_CONNECTIONS: Final = 4
BATCH_STREAMS: Final = 4
FIGURES: Final = ("per_second", "p50_ms", "p95_ms", "p99_ms")
COSTS: Final = ("server_us", "engine_us", "load_us")


def unary_round(directory: Path, users: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The echo, then the service, each fresh and each with the same calls."""
    messages = [requests.enqueue("sale", at).SerializeToString() for at in range(users)]
    with processes.echo() as echo:
        reference = processes.load(echo, "EnqueueBooking", messages, directory=directory)
    kept = directory / "answers"
    with (
        processes.sandbox(directory, tickets=TICKETS) as peers,
        processes.service(directory, peers) as service,
    ):
        subject = processes.load(
            service, "EnqueueBooking", messages, directory=directory, answers=kept
        )
        check_waiting(directory, service, users)
    answers = [pb.EnqueueBookingResponse.FromString(each) for each in processes.kept(kept)]
    check(answers, users)
    return reference, subject


def batch_round(directory: Path, users: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bare script, then the service, with batches of the same size."""
    reference = processes.run_module(
        "bench.bare_join",
        *("--data-dir", str(directory / "bare"), "--joins", str(users), "--batch", str(BATCH)),
    )
    processes.remove(directory / "bare")
    kept = directory / "answers"
    with (
        processes.sandbox(directory, tickets=TICKETS) as peers,
        processes.service(directory, peers) as service,
    ):
        subject = processes.load(
            service,
            "EnqueueBookings",
            list(requests.enqueue_batches("sale", users, BATCH)),
            directory=directory,
            connections=BATCH_CONNECTIONS,
            streams=BATCH_STREAMS,
            answers=kept,
        )
        check_waiting(directory, service, users)
    check(
        [
            answer
            for batch in processes.kept(kept)
            for answer in pb.EnqueueBookingsResponse.FromString(batch).responses
        ],
        users,
    )
    subject["per_second"] *= BATCH
    return reference, subject


def check_waiting(directory: Path, service: processes.Service, users: int) -> None:
    """They still wait, but for the few that the tickets were enough for.

    Raises:
        BenchmarkError: something else was measured, such as turning them all away.
    """
    kept = directory / "status"
    asked = pb.GetQueueStatusRequest(event_id="sale").SerializeToString()
    processes.load(service, "GetQueueStatus", [asked], directory=directory, answers=kept)
    status = pb.GetQueueStatusResponse.FromString(processes.kept(kept)[0])
    if not users - TICKETS <= status.queue_length <= users:
        raise processes.BenchmarkError(f"only {status.queue_length} of {users} wait")


def check(answers: list[pb.EnqueueBookingResponse], users: int) -> None:
    """Everybody has a place of their own.

    Raises:
        BenchmarkError: somebody has not, so the rate would be a lie.
    """
    places = {answer.queue_item_id for answer in answers if answer.success}
    if len(places) != users or any(answer.already_queued for answer in answers):
        raise processes.BenchmarkError(f"{len(places)} places for {users} users")


def run(scale: float) -> Report:
    """See the module."""
    users = max(BATCH, int(USERS * scale) // BATCH * BATCH)
    unary, batches = [], []
    with processes.work_dir() as directory:
        sync_ms = processes.sync_milliseconds(directory)
        for _ in range(ROUNDS):
            unary.append(unary_round(directory, users))
            batches.append(batch_round(directory, users))
    echoes, joins = zip(*unary, strict=True)
    bare, batched = zip(*batches, strict=True)
    rows = [
        medians("echo, unary", echoes, (*FIGURES, "server_us", "load_us")),
        medians("joins, unary", joins, (*FIGURES, *COSTS)),
        medians(f"bare script, {BATCH} a call", bare, FIGURES),
        medians(f"joins, {BATCH} a call", batched, (*FIGURES, *COSTS)),
    ]
    ratio = paired_ratio(joins, echoes)
    batch_ratio = paired_ratio(batched, bare)
    return Report(
        "joins",
        rows,
        {"ratio": ratio, "batch_ratio": batch_ratio},
        [
            at_least(f"unary joins over the echo, at least {LEAST}", ratio, LEAST),
            at_most(f"p99 in ms, at most {MOST_P99_MS:.0f}", rows[1]["p99_ms"], MOST_P99_MS),
            at_least(
                f"joins in batches over the bare script, at least {LEAST_OF_SCRIPT}",
                batch_ratio,
                LEAST_OF_SCRIPT,
            ),
        ],
        [
            f"{users:,} users, medians of {ROUNDS} runs in turns, ratios of pairs; us: CPU a call",
            f"a sync to disk takes {sync_ms:.2f} ms",
        ],
    )
