"""Fault 3: a worker is stopped for longer than its lease, and goes on when another has its task.

A worker that wakes up too late drops its task by its own timer, unless it was stopped between a
look at that timer and the write: then the fencing token refuses the write. Here the timer is
switched off, so that the write is sure to come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Held, Joined, Lease, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.sandbox.answering import Answering
from tests.support.engines import FIRST_ENGINE, STANDALONE
from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop
from tests.support.stage import a_join
from tests.support.wait import wait_until

Answer = Callable[[BookingQueue, Lease], Awaitable[object]]

ANSWERS: dict[str, Answer] = {
    "extend": lambda queue, lease: queue.extend(lease),
    "hand back": lambda queue, lease: queue.hand_back(lease, asked=False),
    "retry": lambda queue, lease: queue.settle_retry(lease, 0, "no answer"),
    "held": lambda queue, lease: queue.settle_held(lease, Held("B-other", "REF", None)),
    "short": lambda queue, lease: queue.settle_short(lease, "sold"),
    "rejected": lambda queue, lease: queue.settle_rejected(lease, "taken"),
}


async def zombie(shop: Shop, *without: str) -> tuple[BookingQueue, Lease]:
    """The old lease of a task that another worker has in hand by now: its booking is made."""
    hand = shop.hand(*without)
    replica = await shop.open(*without, moves_clock=True)
    replica.freeze()
    await shop.clock.start()
    (joined,) = await shop.queue.join(EVENT, [a_join("ann")])
    assert isinstance(joined, Joined)
    shop.took(joined.item_id, "ann")
    await hand.set_capacity(EVENT, await hand.ask_capacity(EVENT), 100)
    (lease,) = (await hand.claim(EVENT, "zombie", 1, frozenset({Task.RESERVE}))).leases
    shop.sandbox.booking_faults.latency_ms = 800
    await shop.clock.advance(2_000)
    replica.thaw()
    await wait_until(lambda: shop.ledger().creates == 1)
    return hand, lease


async def test_every_answer_under_the_old_lease_is_refused(shop: Shop):
    hand, lease = await zombie(shop)
    for answer in ANSWERS.values():
        with pytest.raises(Fenced):
            await answer(hand, lease)
    assert await shop.statuses() == [Status.PROCESSING]
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.sell()
    assert await shop.statuses() == [Status.COMPLETED]
    await shop.kept()


async def test_the_zombies_word_counts_without_the_fencing_token(shop: Shop):
    hand, lease = await zombie(shop, "fencing")
    assert await ANSWERS["rejected"](hand, lease) is Status.REJECTED
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.sell()
    assert any("holds tickets of" in one for one in await shop.broken())


async def leased(shop: Shop) -> dict[str, int]:
    """The tokens of all that is being reserved."""
    items = await shop.queue.list_items(EVENT, "admitted", 0, 500)
    return {item.item_id: item.token for item in items if item.status is Status.PROCESSING}


async def has_moved_on(shop: Shop, in_hand: dict[str, int]) -> bool:
    """Whether no lease of that time is left."""
    return not in_hand.items() & (await leased(shop)).items()


async def stop_for_longer_than_its_lease(shop: Shop, stopped: Replica, other: Replica) -> None:
    in_hand = await wait_until(lambda: leased(shop))
    stopped.freeze()
    selling = asyncio.ensure_future(shop.sell(via=other))
    await wait_until(lambda: has_moved_on(shop, in_hand), timeout=5)
    selling.cancel()
    await asyncio.gather(selling, return_exceptions=True)
    stopped.thaw()


async def test_stopped_processes_that_go_on_change_nothing(shop: Shop):
    """Really stopped, at whatever they were doing, while a lease is all that they have.

    Their own timers drop most of what they had in hand before it reaches the engine.
    """
    first = await shop.open(worker_lease_seconds=1, peer_timeout_seconds=0.5, worker_pool_size=10)
    second = await shop.open(worker_lease_seconds=1, peer_timeout_seconds=0.5, worker_pool_size=10)
    shop.sandbox.booking_faults.latency_ms = 250
    await shop.join_many(120)
    for stopped in (first, second):
        await stop_for_longer_than_its_lease(shop, stopped, second if stopped is first else first)
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.sell()
    await shop.kept()


on_each_kind_of_engine = pytest.mark.parametrize(
    "engine", [*FIRST_ENGINE, STANDALONE], ids=lambda kind: kind.name, indirect=True
)
LATE_WORDS: Final = (None, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE)
"""What the zombie hears: a booking, a refusal, which it weighs under its lease, and no answer."""
PATIENT: Final = {"worker_lease_seconds": 30, "peer_timeout_seconds": 20}


@dataclass
class HeldUp:
    """Bookings are made when the test says so; the first call for each item gets a late word."""

    asked: list[str] = field(default_factory=list)
    words: dict[str, grpc.StatusCode | None] = field(default_factory=dict)
    _may_go: asyncio.Event = field(default_factory=asyncio.Event)

    def put_in(self, patch: pytest.MonkeyPatch) -> None:
        begin = Answering.begin

        async def held_up(one: Answering, method: str, key: str, context: Any) -> Any:
            if method == "CreateBooking":
                self.asked.append(key)
                await self._may_go.wait()
                if code := self.words.pop(key, None):
                    await context.abort(code, "late")
            return await begin(one, method, key, context)

        patch.setattr(Answering, "begin", held_up)

    def let_go(self, *, for_good: bool = False) -> None:
        """Of those that are held up; with ``for_good``, of all that come."""
        self._may_go.set()
        if not for_good:
            self._may_go = asyncio.Event()


@dataclass
class Late:
    """A process that woke up and has every answer, while another has the tasks in hand."""

    zombie: Replica
    in_hand: dict[str, int]
    ids: list[str]
    calls: HeldUp


async def woken_late(shop: Shop, patch: pytest.MonkeyPatch, *without: str) -> Late:
    """One whose own timer is off: each answer leads to a write under a lease that has ended."""
    calls = HeldUp()
    calls.put_in(patch)
    zombie = await shop.open(
        "the worker's own timer", *without, **PATIENT | {"worker_lease_seconds": 1}
    )
    ids = await shop.join_many(len(LATE_WORDS))
    await wait_until(lambda: len(calls.asked) == len(ids))
    zombie.freeze()
    calls.words.update(zip(ids, LATE_WORDS, strict=True))
    # Its answers wait for it in the socket.
    calls.let_go()
    old = await leased(shop)
    await shop.open(*without, **PATIENT)
    await wait_until(lambda: len(calls.asked) == 2 * len(ids))
    in_hand = await leased(shop)
    assert old.keys() == in_hand.keys() == set(ids)
    assert all(old[item_id] < token for item_id, token in in_hand.items())
    zombie.thaw()
    return Late(zombie, in_hand, ids, calls)


async def fenced(replica: Replica) -> float:
    return await replica.metric("booking_worker_fenced_total")


@on_each_kind_of_engine
async def test_late_writes_of_a_stopped_process_are_refused_logged_and_counted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    late = await woken_late(shop, monkeypatch)

    async def are_refused() -> bool:
        return await fenced(late.zombie) == len(LATE_WORDS)

    await wait_until(are_refused)
    assert late.zombie.logged("fenced: the lease had ended") == len(LATE_WORDS)
    assert await leased(shop) == late.in_hand
    late.calls.let_go(for_good=True)
    await shop.sell()
    assert set(await shop.statuses()) == {Status.COMPLETED}
    await shop.kept()


@on_each_kind_of_engine
async def test_late_writes_of_a_stopped_process_count_without_the_fencing_token(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    late = await woken_late(shop, monkeypatch, "fencing")
    await wait_until(lambda: has_moved_on(shop, late.in_hand))
    assert await fenced(late.zombie) == 0
    late.calls.let_go(for_good=True)
    await shop.sell()
    refused = late.ids[LATE_WORDS.index(grpc.StatusCode.FAILED_PRECONDITION)]
    assert await shop.statuses([refused]) == [Status.REJECTED]
    assert any(f"holds tickets of {refused}" in one for one in await shop.broken())
