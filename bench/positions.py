"""How many questions after a place, while 100,000 wait."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

from bench import processes, requests
from bench.report import Report, at_least, medians, paired_ratio
from booking_worker.proto import booking_worker_pb2 as pb

WAITING: Final = 100_000
CALLS: Final = 100_000
BATCH: Final = 100
ROUNDS: Final = 7
LEAST: Final = 0.55


def fill(directory: Path, service: processes.Service, waiting: int) -> list[str]:
    """Bring so many into the line; the item of each user, in their order."""
    kept = directory / "answers"
    processes.load(
        service,
        "EnqueueBookings",
        list(requests.enqueue_batches("sale", waiting, BATCH)),
        directory=directory,
        connections=1,
        streams=4,
        answers=kept,
    )
    return [
        answer.queue_item_id
        for batch in processes.kept(kept)
        for answer in pb.EnqueueBookingsResponse.FromString(batch).responses
    ]


def ask(
    directory: Path,
    server: processes.Echo | processes.Service,
    messages: list[bytes],
    answers: Path,
) -> dict[str, Any]:
    """One run of all questions."""
    return processes.load(
        server, "GetQueuePosition", messages, directory=directory, answers=answers
    )


def check(answers: Path) -> None:
    """All answers but a few (those admitted) are places in the line.

    Raises:
        BenchmarkError: they are not, so the rate is of something else.
    """
    places = [pb.GetQueuePositionResponse.FromString(each) for each in processes.kept(answers)]
    waiting = sum(place.status == "waiting" and place.position > 0 for place in places)
    if waiting < len(places) * 0.99:
        raise processes.BenchmarkError(f"only {waiting} of {len(places)} wait")


def run(scale: float) -> Report:
    """See the module."""
    waiting, calls = int(WAITING * scale), int(CALLS * scale)
    references, subjects = [], []
    with (
        processes.work_dir() as directory,
        processes.sandbox(directory, tickets=10) as peers,
        processes.service(directory, peers) as service,
        processes.echo() as echo,
    ):
        items = fill(directory, service, waiting)
        chosen = random.Random(1).choices(range(waiting), k=calls)
        messages = [
            pb.GetQueuePositionRequest(
                queue_item_id=items[at], user_id=requests.user(at)
            ).SerializeToString()
            for at in chosen
        ]
        kept = directory / "answers"
        for _ in range(ROUNDS):
            references.append(ask(directory, echo, messages, kept))
            subjects.append(ask(directory, service, messages, kept))
            check(kept)
    figures = ("per_second", "p50_ms", "p95_ms", "p99_ms", "server_us", "load_us")
    rows = [
        medians("echo", references, figures),
        medians("positions", subjects, (*figures, "engine_us")),
    ]
    ratio = paired_ratio(subjects, references)
    return Report(
        "positions",
        rows,
        {"ratio": ratio},
        [at_least(f"positions over the echo, at least {LEAST}", ratio, LEAST)],
        [
            f"{calls:,} calls while {waiting:,} wait; us: CPU a call",
            f"medians of {ROUNDS} runs in turns, ratio of pairs",
        ],
    )
