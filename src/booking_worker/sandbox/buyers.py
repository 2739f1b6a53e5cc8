"""A crowd of buyers, as many as a sale has, on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from booking_worker.domain.model import Status
from booking_worker.sandbox.buyer import Behaviour, Buyer, BuyerResult, Habits
from booking_worker.sandbox.queue_client import QueueClient

REALISTIC: Final[Mapping[Behaviour, float]] = {
    Behaviour.PAY: 0.70,
    Behaviour.DONT_PAY: 0.12,
    Behaviour.CANCEL: 0.08,
    Behaviour.PAY_LATE: 0.04,
    Behaviour.JOIN_TWICE: 0.06,
}

_PROGRESS_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the crowd is."""

    seconds: float
    """Since the first buyer set out."""
    buyers: int
    joined: int
    """Those whose place was acknowledged."""
    finished: int
    """Those who are done, refused ones included."""
    statuses: Mapping[str, int]
    """How many buyers last saw each status; '' for none so far."""
    calls: int
    failures: Mapping[str, int]
    """Calls that were repeated, by the code that they ended with."""


def behaviours(
    count: int, shares: Mapping[Behaviour, float], rng: random.Random
) -> list[Behaviour]:
    """A behaviour for each of so many buyers, in shares as exact as whole numbers allow.

    Raises:
        ValueError: a share is below 0, or none is above.
    """
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise ValueError("shares must be 0 or more, and one of them more")
    exact = {behaviour: count * share / total for behaviour, share in shares.items()}
    counts = {behaviour: int(number) for behaviour, number in exact.items()}
    by_remainder = sorted(exact, key=lambda behaviour: counts[behaviour] - exact[behaviour])
    for behaviour in by_remainder[: count - sum(counts.values())]:
        counts[behaviour] += 1
    given = [behaviour for behaviour, number in counts.items() for _ in range(number)]
    rng.shuffle(given)
    return given


class Buyers:
    """``count`` buyers of one event, over real gRPC against a BookingWorkerService.

    ``shares`` are weights. The same seed gives the same buyer the same behaviour, number of
    seats (1 to ``most_seats``), moment of arrival (within ``arrive_seconds``) and luck. User ids
    are ``prefix`` and a number. ``joins_in_flight`` and ``polls_per_second`` bound what the crowd
    asks at once, so that thousands fit into one process.
    """

    def __init__(
        self,
        endpoint: str,
        count: int,
        event_id: str,
        shares: Mapping[Behaviour, float] = REALISTIC,
        seed: int = 0,
        *,
        habits: Habits = Habits(),  # noqa: B008 - frozen
        most_seats: int = 1,
        arrive_seconds: float = 0.0,
        patience_seconds: float = 600.0,
        prefix: str = "buyer-",
        connections: int = 4,
        joins_in_flight: int = 500,
        polls_per_second: float = 1_500.0,
    ) -> None:
        self._endpoint = endpoint
        self._event_id = event_id
        self._jitter = random.Random(seed)
        self._habits = habits
        self._patience_seconds = patience_seconds
        self._connections = connections
        self._joins_in_flight = joins_in_flight
        self._polls_per_second = polls_per_second
        rng = random.Random(seed)
        self._results = [
            BuyerResult(f"{prefix}{number:06d}", behaviour, rng.randint(1, most_seats))
            for number, behaviour in enumerate(behaviours(count, shares, rng))
        ]
        self._arrivals = [rng.random() * arrive_seconds for _ in self._results]
        self._lucks = [rng.random() for _ in self._results]
        self._statuses: Counter[str] = Counter({"": count})
        self._finished = 0

    async def run(self, progress: Callable[[Progress], None] | None = None) -> list[BuyerResult]:
        """Let all of them buy; what became of each, in the order of their numbers.

        ``progress`` is called four times a second and at the end. Who has no final status after
        ``patience_seconds`` is given up on: their ``finished_at`` stays None.
        """
        started = time.monotonic()
        client = QueueClient(self._endpoint, self._jitter, self._connections)
        all_done = asyncio.Event()
        tasks = self._set_out(client, started, all_done)
        # The default walks through thousands of waiting buyers again and again.
        threshold = gc.get_threshold()
        gc.set_threshold(50_000, 20, 100)
        try:
            while not all_done.is_set():
                left = self._patience_seconds - (time.monotonic() - started)
                if left <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(all_done.wait(), min(left, _PROGRESS_SECONDS))
                if progress is not None:
                    progress(self._progress(started, client))
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await client.close()
            gc.set_threshold(*threshold)
        for end in ends:
            if end is not None and not isinstance(end, asyncio.CancelledError):
                raise end
        return self._results

    def _set_out(
        self, client: QueueClient, started: float, all_done: asyncio.Event
    ) -> list[asyncio.Task[None]]:
        doors = asyncio.Semaphore(self._joins_in_flight)

        def on_status(before: str, after: str) -> None:
            self._statuses[before] -= 1
            self._statuses[after] += 1

        def everybodys_pause() -> float:
            in_line = self._statuses[""] + self._statuses[Status.WAITING]
            return in_line / self._polls_per_second

        async def live(number: int, result: BuyerResult) -> None:
            await asyncio.sleep(self._arrivals[number])
            buyer = Buyer(
                result,
                client,
                self._event_id,
                self._habits,
                number=number,
                luck=self._lucks[number],
                rng=self._jitter,
                started=started,
                doors=doors,
                everybodys_pause=everybodys_pause,
                on_status=on_status,
            )
            await buyer.live()

        def on_end(task: asyncio.Task[None]) -> None:
            self._finished += 1
            broke = not task.cancelled() and task.exception() is not None
            if broke or self._finished == len(self._results):
                all_done.set()

        tasks = [
            asyncio.create_task(live(number, result)) for number, result in enumerate(self._results)
        ]
        for task in tasks:
            task.add_done_callback(on_end)
        if not tasks:
            all_done.set()
        return tasks

    def _progress(self, started: float, client: QueueClient) -> Progress:
        return Progress(
            seconds=time.monotonic() - started,
            buyers=len(self._results),
            joined=sum(result.joined_at is not None for result in self._results),
            finished=self._finished,
            statuses={status: count for status, count in self._statuses.items() if count},
            calls=client.calls,
            failures=dict(client.failures),
        )
