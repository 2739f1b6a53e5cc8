"""Fault 25: lock nodes lost, one back empty; two housekeepers at once; one killed, one stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import pytest

from booking_worker.domain.model import Task
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.queue import keys
from booking_worker.sandbox import journal
from tests.support.replica import Replica
from tests.support.servers import Server, standalone
from tests.support.shop import EVENT, Shop
from tests.support.stage import a_join
from tests.support.wait import wait_until

TICKETS: Final = 60
LOCK: Final = keys.of_event(EVENT)["lock"]
STATE: Final = keys.of_event(EVENT)["state"]


@pytest.fixture
def tickets() -> int:
    return TICKETS


@pytest.fixture
async def nodes() -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(standalone()) for _ in range(3)]


async def two(shop: Shop, nodes: list[Server]) -> tuple[Replica, Replica]:
    """Two replicas whose housekeeper is elected by three nodes."""
    named = {"redis_lock_nodes": ",".join(node.endpoint for node in nodes)}
    return await shop.open(**named), await shop.open(**named)


def lines(shop: Shop, replica: Replica) -> list[journal.AuditLine]:
    """What stands in the audit log of one replica."""
    with (shop.directory / f"{replica.name}.audit").open(encoding="utf-8") as log:
        return [line for line in journal.read_lines(log) if line.change_id]


def told(shop: Shop) -> Counter[str]:
    """How often each change stands in all audit logs together."""
    return Counter(line.change_id for replica in shop.replicas for line in lines(shop, replica))


async def all_told(shop: Shop, number: int) -> None:
    """Return once so many changes have been told of."""
    await wait_until(lambda: len(told(shop)) >= number, timeout=15)


async def sold(shop: Shop, buyers: int = 80) -> None:
    """Everybody has come to an end, as many as there were tickets with one."""
    await shop.sell()
    ended = Counter(await shop.statuses())
    assert ended == {"completed": TICKETS, "sold_out": buyers - TICKETS}


async def test_each_change_is_in_one_audit_log_once_and_each_buyer_is_told_once(shop: Shop):
    one, other = await shop.open(), await shop.open()
    ids = await shop.join_many(80)
    await sold(shop)
    await shop.kept()
    counts = told(shop)
    assert set(counts.values()) == {1}
    assert sorted((not lines(shop, one), not lines(shop, other))) == [False, True]
    for item_id, user_id in list(shop.owners.items())[:TICKETS]:
        kinds = Counter(one.type for one in shop.sandbox.notices.to_user(user_id))
        assert set(kinds.values()) == {1}, (item_id, kinds)
        assert {"booking:awaiting_payment", "NotifyBookingResult"} <= kinds.keys()
    assert len(ids) == 80


async def holder_of(shop: Shop) -> Replica:
    """The replica that tells, found by what it told; one person more has joined for it."""
    await shop.join("somebody")
    await all_told(shop, 1)
    return next(replica for replica in shop.replicas if lines(shop, replica))


async def test_the_holder_is_killed_and_another_goes_on(shop: Shop):
    """The last batches before it may come again, with the same ids; none is left out."""
    await shop.open()
    await shop.open()
    holder = await holder_of(shop)
    await shop.join_many(79)
    await holder.kill()
    await sold(shop)
    await shop.kept()
    assert set(told(shop).values()) <= {1, 2}


async def test_the_holder_is_stopped_and_goes_on_when_another_has_its_place(shop: Shop):
    await shop.open()
    await shop.open()
    holder = await holder_of(shop)
    holder.freeze()
    (other,) = (replica for replica in shop.replicas if replica is not holder)
    await shop.join_many(79, via=other)
    await wait_until(lambda: lines(shop, other), timeout=15)
    holder.thaw()
    await sold(shop)
    await shop.kept()
    assert set(told(shop).values()) <= {1, 2}


async def test_the_holder_ends_in_order_and_another_goes_on_at_once(shop: Shop):
    await shop.open()
    await shop.open()
    holder = await holder_of(shop)
    fence = int(await shop.client.hget(STATE, "fence"))
    assert await holder.stop() == 0
    await wait_until(lambda: _fence_is_past(shop, fence), timeout=2)
    await shop.join_many(79)
    await sold(shop)
    await shop.kept()
    assert set(told(shop).values()) == {1}


async def _fence_is_past(shop: Shop, fence: int) -> bool:
    return int(await shop.client.hget(STATE, "fence")) > fence


async def test_one_node_of_three_is_lost(shop: Shop, nodes: list[Server]):
    await two(shop, nodes)
    await shop.join_many(40)
    await nodes[0].kill()
    await shop.join_many(40, name="later")
    await sold(shop)
    await shop.kept()
    assert set(told(shop).values()) == {1}


async def test_without_a_majority_housekeeping_pauses_and_sales_go_on(
    shop: Shop, nodes: list[Server]
):
    # A worker has a task, and dies over it: only its deadline gives that to another.
    join = a_join("leased")
    await shop.queue.join(EVENT, [join])
    await shop.queue.set_capacity(EVENT, await shop.queue.ask_capacity(EVENT), TICKETS)
    assert len((await shop.queue.claim(EVENT, "dead", 1, frozenset(Task))).leases) == 1
    shop.took(join.item_id, "leased")
    for node in nodes[:2]:
        await node.kill()
    one, _ = await two(shop, nodes)
    await shop.join_many(79)
    await sold(shop)
    health = await one.stub.Health(pb.HealthRequest())
    assert health.status == "degraded"
    assert "until a majority answers" in health.details["lock_nodes"]
    assert told(shop) == {}
    assert await shop.client.hget(STATE, "fence") is None
    for node in nodes[:2]:
        await node.start()
    await all_told(shop, 80)
    await shop.kept()
    assert set(told(shop).values()) == {1}


async def test_a_node_that_is_back_empty_does_no_harm(shop: Shop, nodes: list[Server]):
    one, other = await two(shop, nodes)
    await shop.join_many(40)
    for node in nodes:
        await node.ask("FLUSHALL")
    await shop.join_many(40, name="later")
    await sold(shop)
    await shop.kept()
    assert set(told(shop).values()) <= {1, 2}
    assert one.logged('"level": "error"') + other.logged('"level": "error"') == 0


async def test_two_housekeepers_at_once_do_no_harm(shop: Shop):
    """As if the lock had not been there: all is told twice, and no promise is broken."""
    await shop.open("the lock")
    await shop.open("the lock")
    await shop.join_many(80)
    await sold(shop)
    await shop.kept()
    assert max(told(shop).values()) == 2
