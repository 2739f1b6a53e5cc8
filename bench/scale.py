"""What a join costs the engine as the line, the events and the processes of the service grow.

The engine is a server of its own, as in production, that syncs before it answers; its CPU and
memory are those that its INFO gives, with all that the service does besides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from bench import processes, requests
from bench.line import LIMITS
from bench.report import Report, at_most
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.sandbox.engine_process import EngineProcess

WAITING: Final = (0, 100_000, 1_000_000)
EVENTS: Final = (1, 100)
PROCESSES: Final = (1, 2)
JOINS: Final = 10_000
UNARY: Final = 20_000
"""So many last a second: a shorter load is measured with what the service does once a few seconds,
or without."""
TRIES: Final = 5
"""Of which the median counts. The least stands beside it: what else runs on a host can only add to
the CPU that a call takes, and at times adds half."""
TICKETS: Final = 10
"""Held by the first of each line: nobody is told that all is sold."""
BATCH: Final = 100
STREAMS: Final = 20
RUSH: Final = 100
"""Connections, of 20 calls at a time each: the load. The more people come at once, the more of them
share a call of a script."""
FEW: Final = 20
"""The connections of a lighter load, for comparison: over many events it leaves little to share."""
BATCHES: Final = 20
"""Batches at a time."""
FILL: Final = 500
LOOP: Final = 500_000
JUDGED: Final = ("unary_us", "batch_us")
FLAT: Final = 1.5
MOST_UNARY_US: Final = 25.0
MOST_BATCH_US: Final = 15.0
MOST_BYTES: Final = 600.0
SETTINGS: Final[Mapping[str, str | int]] = {
    "ENGINE": "redis",
    "REDIS_HOST": "127.0.0.1",
    # The engine has it all to itself, so nothing is to end or be swept meanwhile.
    "QUEUE_TIMEOUT_SECONDS": 86_400,
    "QUEUE_CLEANUP_INTERVAL": "24h",
}


class Crowd:
    """People of whom each comes once, to events of which the last draws twice as many as the first.

    Were all lines of one length, all their tables would double in the midst of one row.
    """

    def __init__(self, events: int) -> None:
        self.event_ids = [f"sale-{number}" for number in range(events)]
        self._weights = [1 + number / events for number in range(events)]
        self._random = Random(1)
        self.came = 0
        """So many have come so far; they all wait."""

    def take(self, number: int) -> Iterator[tuple[str, int]]:
        """The event and the number of each of the next so many."""
        start, self.came = self.came, self.came + number
        chosen = self._random.choices(self.event_ids, self._weights, k=number)
        return zip(chosen, range(start, self.came), strict=True)

    def unary(self, number: int) -> list[bytes]:
        """Messages of EnqueueBooking."""
        return [
            requests.enqueue(event_id, at).SerializeToString() for event_id, at in self.take(number)
        ]

    def batches(self, number: int) -> list[bytes]:
        """Messages of EnqueueBookings, the requests of one for one event: a gateway sorts them."""
        by_event: dict[str, list[int]] = {}
        for event_id, at in self.take(number):
            by_event.setdefault(event_id, []).append(at)
        return [
            pb.EnqueueBookingsRequest(
                requests=[requests.enqueue(event_id, at) for at in batch]
            ).SerializeToString()
            for event_id, numbers in by_event.items()
            for batch in (numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH))
        ]


class Line(NamedTuple):
    """An engine of its own, and who waits there."""

    port: int
    client: Redis
    crowd: Crowd


async def fill(line: Line, number: int) -> None:
    """Bring so many into the lines, by the script alone."""
    by_event: dict[str, list[int]] = {}
    for event_id, at in line.crowd.take(number):
        by_event.setdefault(event_id, []).append(at)
    async with AsyncRedis(port=line.port) as client:
        queue = BookingQueue(client, LIMITS)
        for event_id, numbers in by_event.items():
            for start in range(0, len(numbers), FILL):
                joins = [requests.join(event_id, at) for at in numbers[start : start + FILL]]
                await queue.join(event_id, joins)


@contextmanager
def engine(directory: Path, events: int) -> Iterator[Line]:
    """A server of its own, where nobody waits yet."""
    process = EngineProcess(directory)
    asyncio.run(process.start())
    try:
        with Redis(port=process.port) as client:
            # It comes now and then, and would be in one row and not in the next.
            client.config_set("auto-aof-rewrite-percentage", 0)
            yield Line(process.port, client, Crowd(events))
    finally:
        process.kill()


def cpu_us(client: Redis) -> float:
    """The engine's CPU so far, microseconds."""
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"]) * 1e6


def host_ms() -> float:
    """The CPU of a fixed loop, milliseconds: where it takes longer, others use the same cores."""
    began = time.process_time()
    total = 0
    for number in range(LOOP):
        total += number
    return round((time.process_time() - began) * 1e3, 1)


def memory(client: Redis) -> int:
    """The engine's memory, bytes."""
    info: Any = client.info("memory")
    return int(info["used_memory"])


def wait_until_told(line: Line) -> None:
    """Return once the service has told of all that the lines were filled with.

    Raises:
        BenchmarkError: it has not within a minute.
    """
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pipeline = line.client.pipeline(transaction=False)
        for event_id in line.crowd.event_ids:
            named = keys.of_event(event_id)
            pipeline.xrevrange(named["changes"], count=1)
            pipeline.hget(named["state"], "cursor")
        answers: list[Any] = pipeline.execute()
        if all(
            not last or last[0][0] == cursor
            for last, cursor in zip(answers[::2], answers[1::2], strict=True)
        ):
            return
        time.sleep(0.2)
    raise processes.BenchmarkError("the service does not get through the changes of the fill")


def measure(directory: Path, line: Line, count: int) -> dict[str, Any]:
    """Joins through so many processes: how many a second, and what each cost the engine."""
    settings = {**SETTINGS, "REDIS_PORT": line.port}
    figures: dict[str, Any] = {}
    with (
        processes.sandbox(directory, tickets=TICKETS) as peers,
        processes.service(directory, peers, settings, "--processes", str(count)) as service,
    ):
        wait_until_told(line)
        figures["host_ms"] = median(host_ms() for _ in range(5))
        for name, method, joins, messages, connections, streams in (
            ("few", "EnqueueBooking", JOINS, line.crowd.unary(JOINS), FEW, STREAMS),
            ("unary", "EnqueueBooking", UNARY, line.crowd.unary(UNARY), RUSH, STREAMS),
            ("batch", "EnqueueBookings", JOINS, line.crowd.batches(JOINS), BATCHES, 1),
        ):
            before = cpu_us(line.client)
            load = processes.load(
                service,
                method,
                messages,
                directory=directory,
                connections=connections,
                streams=streams,
            )
            figures[f"{name}_us"] = round((cpu_us(line.client) - before) / joins, 1)
            figures[f"{name}_per_second"] = round(joins / load["seconds"])
    return figures


def taken_together(tries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of each figure, and the least of the costs that are judged."""
    figures: dict[str, Any] = {}
    for name in tries[0]:
        values = [one[name] for one in tries]
        figures[name] = median(values)
        if name in JUDGED:
            figures[name.replace("_us", "_least_us")] = min(values)
    return figures


def in_turns(directory: Path, lines: Sequence[Line], count: int) -> list[dict[str, Any]]:
    """A row for each line: all of them have the same minutes of the machine."""
    waiting = [line.crowd.came for line in lines]
    tries = [[measure(directory, line, count) for line in lines] for _ in range(TRIES)]
    return [
        {"waiting": f"{number:,}", "events": len(line.crowd.event_ids), "procs": count}
        | taken_together(of_line)
        for number, line, of_line in zip(waiting, lines, zip(*tries, strict=True), strict=True)
    ]


def run(scale: float) -> Report:
    """See the module; ``scale`` shortens all lines."""
    rows: list[dict[str, Any]] = []
    bytes_each: list[float] = []
    with processes.work_dir() as directory:
        for events, count in product(EVENTS, PROCESSES):
            with ExitStack() as stack:
                lines: list[Line] = []
                for waiting in (int(length * scale) for length in WAITING):
                    own = directory / f"{events}-{count}-{waiting}"
                    line = stack.enter_context(engine(own, events))
                    lines.append(line)
                    before = memory(line.client)
                    asyncio.run(fill(line, waiting))
                    if waiting:
                        bytes_each.append((memory(line.client) - before) / waiting)
                rows += in_turns(directory, lines, count)
    return report(rows, max(bytes_each))


def report(rows: list[dict[str, Any]], bytes_each: float) -> Report:
    """The dearest of all rows is judged; those measured in turns with a short line, by it too."""
    shortest: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        shortest.setdefault((row["events"], row["procs"]), row)
    ratio = max(
        row[figure] / shortest[row["events"], row["procs"]][figure]
        for row in rows
        for figure in JUDGED
    )
    dearest = {figure: max(row[figure] for row in rows) for figure in JUDGED}
    return Report(
        "scale",
        rows,
        {"ratio": ratio, "bytes": bytes_each},
        [
            at_most(f"engine CPU of a longer line over the shortest, at most {FLAT}", ratio, FLAT),
            at_most("engine us a unary join, at most 25", dearest["unary_us"], MOST_UNARY_US),
            at_most("engine us a join in batches, at most 15", dearest["batch_us"], MOST_BATCH_US),
            at_most("bytes of the engine a waiting item, at most 600", bytes_each, MOST_BYTES),
        ],
        [
            "us: CPU of the engine a join; medians, and the least that it took",
            "host_ms: CPU of a fixed loop, before; where others use the cores, all takes longer",
            f"{JOINS:,} joins a row and way (unary {UNARY:,}), {TRIES} times, lengths in turns",
            "waiting: at first; those who join meanwhile wait as well",
            f"unary: {RUSH * STREAMS:,} callers at a time; few: {FEW * STREAMS}, without a goal",
            f"batch: {BATCHES} batches of {BATCH} at a time; no rewrite of the append-only file",
        ],
    )
