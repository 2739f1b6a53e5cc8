"""A sale on BookingQueue with a real engine, and on the reference queue, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from booking_worker.domain.errors import BookingWorkerError
from booking_worker.domain.model import EventStatus, Lease, Place, Status
from booking_worker.queue.booking_queue import BookingQueue, CapacityQuestion, QueueLimits
from tests.model import promises
from tests.model.reference_item import HOLDING, Item
from tests.model.reference_queue import ReferenceQueue
from tests.model.world import World
from tests.support import queue_audit
from tests.support.clock import MOVED_BY_TESTS, Clock
from tests.support.queue_audit import Keys

EVENT = "fête-💃"
Choose = Callable[[Sequence[Any], str], Any]
"""One of these, by a label that says what for."""


@dataclass
class Session:
    """The engine of all sales, and how many steps were made on it."""

    runner: asyncio.Runner
    client: Redis
    scripts: Mapping[str, str] = field(default_factory=dict)
    focus: Mapping[str, int] = field(default_factory=dict)
    """How many times more often than usual something happens."""
    compare: bool = True
    """Whether the reference is right. Without, only the promises are judged, of honest sales, each
    until the two queues part."""
    steps: int = 0


def said(outcome: object) -> object:
    """An outcome as it is compared: errors by their kind, and the status that they name."""
    if isinstance(outcome, BookingWorkerError):
        return type(outcome), getattr(outcome, "status", None)
    if isinstance(outcome, list):
        return [said(one) for one in outcome]
    return outcome


class PartedWays(Exception):
    """The queue does what the reference does not, and that is not what is looked for."""


class Sale:
    """What both queues have, and what is checked after each step."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.leases: list[Lease] = []
        self.called: set[int] = set()
        self.questions: list[CapacityQuestion] = []
        self.replies: list[tuple[CapacityQuestion, int]] = []
        self.outcomes: list[tuple[object, object]] = []
        self.seen = Keys(EVENT)
        self.ids = 0

    def begin(self, choose: Choose) -> None:
        """``honest``: nobody else sells, and the Ticket Service tells the truth."""
        client = self.session.client
        self.limits = QueueLimits(
            max_size=choose((4, 100), "max_size"),
            places_per_user=choose((1, 2), "places_per_user"),
            queue_timeout_ms=200_000,
            payment_timeout_ms=60_000,
            payment_grace_ms=6_000,
            result_ttl_ms=10**9,
            lease_ms=3_000,
            max_retries=choose((0, 0, 1, 2), "max_retries"),
            max_crashes=choose((1, 2, 3), "max_crashes"),
        )
        self.honest = choose((True, False), "honest") or not self.session.compare
        self.world = World(choose((12, 30, 6, 3, 0), "tickets"))
        self.clock = Clock(client)
        self.queue = BookingQueue(client, self.limits, {**MOVED_BY_TESTS, **self.session.scripts})
        self.model = ReferenceQueue(self.limits, self.clock.now)
        self.run(client.flushall())
        self.run(self.clock.start())

    def step(self, choose: Choose) -> None:
        """One of what may happen now, the more interesting more often; then all is checked."""
        may = [name for name, weight in self.may_happen().items() for _ in range(weight)]
        getattr(self, choose(may, "what"))(choose)
        self.session.steps += 1
        self._all_is_well()

    def may_happen(self) -> dict[str, int]:
        """Names of methods, each with its weight; they are given a way to choose."""
        raise NotImplementedError

    def run(self, question: Awaitable[Any]) -> Any:
        """Its answer, on the session's event loop."""

        async def asking() -> Any:
            return await question

        return self.session.runner.run(asking())

    def both(self, question: Awaitable[Any], model: Callable[[], Any]) -> tuple[Any, Any]:
        """The outcomes of the queue and of the reference, to be compared after the step."""
        outcomes = []
        for ask in (lambda: self.run(question), model):
            try:
                outcomes.append(ask())
            except BookingWorkerError as error:
                outcomes.append(error)
        real, expected = outcomes
        self.outcomes.append((said(real), said(expected)))
        return real, expected

    def pick(self, choose: Choose, *statuses: Status) -> Item:
        """An item, mostly in one of these statuses if there is any."""
        items = list(self.model.items.values())
        if choose((True, True, True, False), "mostly"):
            items = self.model.among(*statuses) or items
        return choose(items, "item")

    # --- after each step

    def _all_is_well(self) -> None:
        """The promises hold, and then: the queue is what the reference is."""
        ids = list(self.model.items)
        keys, books, places = self.run(self._look(ids))
        promises.no_more_than_were_left(keys)
        promises.conserved(keys)
        promises.nobody_lost(keys)
        promises.in_order(self.seen, keys)
        promises.one_live_place(keys, self.limits.places_per_user)
        if self.honest:
            promises.never_admitted_in_vain(keys, self.world)
        self.seen = keys
        if not self.session.compare:
            # That it is another is known; what comes of it is of interest.
            self.model.capacity = keys.count("capacity")
            self.model.exact = keys.count("exact") == 1
        try:
            for real, expected in self.outcomes:
                assert real == expected
            self._same_items(keys, dict(zip(ids, places, strict=True)))
            self._same_books(books)
        except AssertionError:
            if self.session.compare:
                raise
            raise PartedWays from None
        self.outcomes.clear()

    async def _look(self, ids: list[str]) -> tuple[Keys, EventStatus, list[Place | None]]:
        return await asyncio.gather(
            queue_audit.read(self.session.client, EVENT, ends=False),
            self.queue.status(EVENT),
            self.queue.positions(EVENT, ids),
        )

    def _same_items(self, keys: Keys, places: dict[str, Place | None]) -> None:
        items = self.model.items.values()
        seen = {id_: place and (place.status, place.position) for id_, place in places.items()}
        line = {item.item_id: at for at, item in enumerate(self.model.waiting(), 1)}
        assert seen == {item.item_id: (item.status, line.get(item.item_id, 0)) for item in items}
        assert keys.timeouts == {
            item.item_id: item.deadline for item in items if item.deadline is not None
        }
        assert set(keys.tasks) == {item.item_id for item in items if item.ready}

    def _same_books(self, books: EventStatus) -> None:
        model = self.model
        processing, held = model.seats(Status.PROCESSING), model.seats(*HOLDING)
        confirmed = model.seats(Status.COMPLETED)
        expected = {
            "now_ms": model.now,
            "waiting": len(model.waiting()),
            "processing": len(model.among(Status.PROCESSING)),
            "awaiting_payment": len(model.among(*HOLDING)),
            "sold_out_items": len(model.among(Status.SOLD_OUT)),
            "dead_letters": sum(not item.discarded for item in model.among(Status.FAILED)),
            "joined": len(model.items),
            "admitted": model.admitted,
            "capacity": None if model.unlimited or not model.answered else model.capacity,
            "capacity_known": model.known,
            "capacity_exact": model.exact,
            "processing_seats": processing,
            "held_seats": held,
            "confirmed_seats": confirmed,
            "total_seats": model.capacity + processing + held + confirmed,
            "sold_out": model.sold_out,
            "paused": model.answered and not model.known,
        }
        ends = ("completed", "expired", "cancelled", "rejected", "failed")
        expected |= {name: len(model.among(Status(name))) for name in ends}
        assert {name: getattr(books, name) for name in expected} == expected

    def end(self) -> None:
        """What ends every test of the queue."""
        self.run(queue_audit.audit(self.session.client, self.queue))
