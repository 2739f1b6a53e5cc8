"""How many joins: unary and in batches, each durable before it is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bench import processes, requests
from bench.report import Report, at_least, at_most, medians
from booking_worker.proto import booking_worker_pb2 as pb

USERS: Final = 100_000
BATCH: Final = 100
ROUNDS: Final = 3
LEAST: Final = 0.38
LEAST_OF_SCRIPT: Final = 0.40
MOST_P99_MS: Final = 60.0
# So many calls of 100 under way that the server never waits for the load.
BATCH_CONNECTIONS: Final = 4
BATCH_STREAMS: Final = 4
LATENCIES: Final = ("p50_ms", "p95_ms", "p99_ms")


def unary_round(directory: Path, users: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The echo, then the service, each fresh and each with the same calls."""
    messages = [requests.enqueue("sale", at).SerializeToString() for at in range(users)]
    with processes.echo() as port:
        reference = processes.load(port, "EnqueueBooking", messages, directory=directory)
    kept = directory / "answers"
    with (
        processes.sandbox(directory, tickets=10) as peers,
        processes.service(directory, peers) as service,
    ):
        subject = processes.load(
            service.grpc_port, "EnqueueBooking", messages, directory=directory, answers=kept
        )
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
        processes.sandbox(directory, tickets=10) as peers,
        processes.service(directory, peers) as service,
    ):
        subject = processes.load(
            service.grpc_port,
            "EnqueueBookings",
            list(requests.enqueue_batches("sale", users, BATCH)),
            directory=directory,
            connections=BATCH_CONNECTIONS,
            streams=BATCH_STREAMS,
            answers=kept,
        )
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
    figures = ("per_second", *LATENCIES)
    rows = [
        medians("echo, unary", [reference for reference, _ in unary], figures),
        medians("joins, unary", [subject for _, subject in unary], figures),
        medians(f"bare script, {BATCH} a call", [reference for reference, _ in batches], figures),
        medians(f"joins, {BATCH} a call", [subject for _, subject in batches], figures),
    ]
    ratio = rows[1]["per_second"] / rows[0]["per_second"]
    batch_ratio = rows[3]["per_second"] / rows[2]["per_second"]
    cost = max(subject["load_cpu_us_per_call"] for _, subject in unary)
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
        [f"{users:,} users; load: {cost:.1f} us of CPU a call; a sync to disk: {sync_ms:.2f} ms"],
    )
