"""A whole sale: people at the door, a service and peers in processes of their own, an audit after.

The checks trust nothing that the service counts: see promises.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from booking_worker.domain.model import Status
from booking_worker.proto import booking_worker_pb2
from booking_worker.sandbox.audit import LedgerAudit, bookings_in_order, read_audit
from booking_worker.sandbox.buyer import BuyerResult, Habits
from booking_worker.sandbox.buyers import Buyers, Progress
from booking_worker.sandbox.chaos import Chaos
from booking_worker.sandbox.journal import read_lines
from booking_worker.sandbox.promises import Broken, Place, judge
from booking_worker.sandbox.queue_client import QueueClient, Refused
from booking_worker.sandbox.report import Report, report
from booking_worker.sandbox.stage import Stage

EVENT_ID: Final = "demo"
_MOST_SEATS: Final = 2
_QUESTIONS_AT_ONCE: Final = 200
_LOOK_SECONDS: Final = 0.25
_SETTLE_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 600.0
_UNDER_WAY: Final = ("waiting", "processing", "awaiting_payment")


@dataclass(frozen=True, slots=True)
class Sale:
    """What is sold to whom, and under which conditions."""

    buyers: int = 2000
    tickets: int = 100
    seed: int = 0
    workers: int = 20
    """Slots of the worker pool."""
    chaos: bool = False
    replicas: int = 1
    """Services that share the work; with more than one, they share a server as their engine."""

    @property
    def payment_seconds(self) -> float:
        """How long a hold waits: short, but long enough for a buyer among many to hear of it."""
        return round(4.0 + self.buyers / 5_000, 1)

    @property
    def arrive_seconds(self) -> float:
        """Everybody comes at once; where things are killed, over some time, so that joins fail."""
        return min(10.0, 2.0 + self.buyers / 1000) if self.chaos else 0.0

    @property
    def habits(self) -> Habits:
        """How buyers go about it; where things are killed they take longer, so that it hits."""
        return Habits(think_seconds=2.0 if self.chaos else 0.5, longest_poll_seconds=2.0)

    @property
    def chaos_seconds(self) -> float:
        """How long harm is done, at most: until then buyers come, wait, and pay."""
        return min(60.0, 8.0 + self.buyers / 400)

    def settings(self) -> dict[str, str]:
        """Settings of the service under which all of it takes seconds instead of hours."""
        return {
            "QUEUE_MAX_SIZE": str(max(100_000, 2 * self.buyers)),
            "QUEUE_MAX_SEATS": str(_MOST_SEATS),
            "QUEUE_TIMEOUT_SECONDS": "900",
            "QUEUE_CLEANUP_INTERVAL": "2s",
            "PAYMENT_TIMEOUT_SECONDS": str(self.payment_seconds),
            "PAYMENT_GRACE_SECONDS": "2",
            "CAPACITY_REFRESH_SECONDS": "1",
            "WORKER_POOL_SIZE": str(self.workers),
            "WORKER_RETRY_INTERVAL": "100ms",
            # Where every third call fails, three retries are used up by luck alone.
            "WORKER_MAX_RETRIES": "30" if self.chaos else "3",
            "WORKER_LEASE_SECONDS": "2" if self.chaos else "10",
            "PEER_TIMEOUT_SECONDS": "1" if self.chaos else "5",
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """How the sale stands, a few times a second."""

    phase: str
    crowd: Progress | None = None
    books: Mapping[str, int] | None = None
    """The service's own counts by status; None while it does not answer."""
    blows: Mapping[str, int] | None = None
    """What chaos has done so far."""


Watcher = Callable[[Moment], None]


async def hold_sale(
    sale: Sale, directory: Path, environment: Mapping[str, str], watch: Watcher
) -> Report:
    """Hold the sale in an empty directory and judge it; nothing is left running afterwards.

    ``environment`` is that of the processes, without any setting of the service.

    Raises:
        ProcessFailed: a process did not start, or did not stop as it should.
    """
    stage = Stage(directory, sale.settings(), environment, sale.tickets, sale.replicas)
    watch(Moment("starting"))
    await stage.start()
    try:
        return await _hold(sale, stage, watch)
    finally:
        stage.end()


async def _hold(sale: Sale, stage: Stage, watch: Watcher) -> Report:
    began = time.monotonic()
    chaos = Chaos(stage, sale.seed) if sale.chaos else None
    buyers = await _let_them_buy(sale, stage, chaos, watch)
    seconds = time.monotonic() - began
    watch(Moment("settling"))
    await _settled(stage)
    watch(Moment("auditing"))
    places = await _ask_for_all(stage.endpoint, buyers)
    said = await stage.audit()
    await stage.stop()
    ledger = read_audit(stage.ledger)
    with closing(sqlite3.connect(stage.ledger)) as connection:
        bookings = bookings_in_order(connection)
    with stage.audit_log.open() as log:
        lines = read_lines(log)
    verdict = judge(lines, ledger, bookings, places)
    also = (*broken_beside(sale, buyers, places, ledger), *_two_stories(said, ledger))
    verdict = dataclasses.replace(verdict, broken=(*verdict.broken, *also))
    return report(
        tickets=sale.tickets,
        seed=sale.seed,
        seconds=seconds,
        chaos=None if chaos is None else dict(chaos.blows),
        buyers=buyers,
        places=places,
        lines=lines,
        ledger=ledger,
        verdict=verdict,
    )


def broken_beside(
    sale: Sale, buyers: Sequence[BuyerResult], places: Sequence[Place], ledger: LedgerAudit
) -> Iterator[Broken]:
    """What may happen in sales of another kind, but in none of these.

    The line is long enough for everybody, and the peers may fail but never say what is not so.
    """
    odd = [buyer for buyer in buyers if buyer.unexpected]
    if odd:
        yield Broken("nobody is refused", len(odd), f"{odd[0].user_id} heard {odd[0].unexpected}")
    twice = [buyer for buyer in buyers if buyer.two_places]
    if twice:
        yield Broken("one place each", len(twice), f"{twice[0].user_id} was given two")
    if ledger.refusals:
        yield Broken(
            "nobody is admitted in vain",
            ledger.refusals,
            "the Booking Service refused for lack of tickets",
        )
    # Where all peers answer, nothing fails for good.
    never = {Status.REJECTED} if sale.chaos else {Status.REJECTED, Status.FAILED}
    ended = [place for place in places if place.status in never]
    if ended:
        yield Broken("nothing fails", len(ended), f"{ended[0].item_id} is {ended[0].status}")


def _two_stories(said: LedgerAudit, ledger: LedgerAudit) -> Iterator[Broken]:
    if said != ledger:
        yield Broken("one story", 1, f"the sandbox says {said}, its file says {ledger}")


async def _let_them_buy(
    sale: Sale, stage: Stage, chaos: Chaos | None, watch: Watcher
) -> list[BuyerResult]:
    """What became of each buyer; harm ends some time before they do."""
    buyers = Buyers(
        stage.endpoint,
        sale.buyers,
        EVENT_ID,
        seed=sale.seed,
        habits=sale.habits,
        most_seats=_MOST_SEATS,
        arrive_seconds=sale.arrive_seconds,
        patience_seconds=_PATIENCE_SECONDS,
    )
    crowd: Progress | None = None

    def on_progress(progress: Progress) -> None:
        nonlocal crowd
        crowd = progress
        if chaos is not None and progress.seconds > sale.chaos_seconds:
            chaos.stop()

    async def look() -> None:
        while True:
            books = await stage.books(EVENT_ID)
            watch(Moment("selling", crowd, books, None if chaos is None else dict(chaos.blows)))
            all_came = crowd is not None and crowd.joined == sale.buyers
            if chaos is not None and all_came and _is_over(books):
                chaos.stop()
            await asyncio.sleep(_LOOK_SECONDS)

    try:
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(look())
            harming = None if chaos is None else group.create_task(chaos.run())
            results = await buyers.run(on_progress)
            if chaos is not None and harming is not None:
                chaos.stop()
                await harming
            looking.cancel()
    except ExceptionGroup as several:
        raise several.exceptions[0] from several
    return results


async def _settled(stage: Stage) -> None:
    """Wait until nobody is in line or at the till, or until that can't be expected any more."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        books = await stage.books(EVENT_ID)
        if _is_over(books):
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _is_over(books: Mapping[str, int] | None) -> bool:
    """Whether the service says that nobody is in line or at the till."""
    return books is not None and not any(books[status] for status in _UNDER_WAY)


async def _ask_for_all(endpoint: str, buyers: Sequence[BuyerResult]) -> list[Place]:
    """What the service itself says at the end of every place that it acknowledged."""
    client = QueueClient(endpoint, random.Random(0))
    gate = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    until = asyncio.get_running_loop().time() + _SETTLE_SECONDS

    async def ask(number: int, buyer: BuyerResult, item_id: str) -> Place:
        request = booking_worker_pb2.GetQueuePositionRequest(
            queue_item_id=item_id, user_id=buyer.user_id
        )
        async with gate:
            try:
                # A service that is gone for good has lost them.
                async with asyncio.timeout_at(until):
                    status = (await client.position(request, number)).status
            except (Refused, TimeoutError):
                status = ""
        heard = buyer.status if item_id == buyer.item_id and buyer.is_final else ""
        return Place(item_id, buyer.user_id, status, heard)

    try:
        return await asyncio.gather(
            *(
                ask(number, buyer, item_id)
                for number, buyer in enumerate(buyers)
                for item_id in buyer.acknowledged
            )
        )
    finally:
        await client.close()
