"""Fault 10: an answer is lost on the way, for a join, a reserve, a confirm and a cancel."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from booking_worker.domain.model import Status
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.proto import booking_worker_pb2_grpc
from tests.support.cutting import Wire
from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop
from tests.support.wait import wait_until


@pytest.fixture
async def wire_to() -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    """Starts wires."""
    wires = []

    async def start(target: Path | str, listen: Path | None = None) -> Wire:
        wire = Wire(target, listen)
        await wire.start()
        wires.append(wire)
        return wire

    yield start
    for wire in wires:
        await wire.stop()


async def lost(wire: Wire, call: Awaitable[object], took_effect: Callable[[], object]) -> None:
    """Make a call whose answer is lost with its connection, after it took effect."""
    wire.loses_answers = True
    calling = asyncio.ensure_future(call)
    await wait_until(took_effect)
    wire.cut()
    with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
        await calling


async def again(call: Callable[[str], Awaitable[Any]], who: str) -> Any:
    """What it answers, asked until it does: a client may still hold the connection that was cut."""
    while True:
        try:
            return await call(who)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise


# --- from the client to the service ----------------------------------------------------------


async def over(wire: Wire, replica: Replica) -> Replica:
    """From now on this replica is spoken to over the wire, on which all is well so far."""
    await replica.channel.close()
    replica.channel = grpc.aio.insecure_channel(wire.endpoint)
    replica.stub = booking_worker_pb2_grpc.BookingWorkerServiceStub(replica.channel)
    await replica.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id=EVENT))
    return replica


async def join_is_lost(shop: Shop, wire_to: Callable[..., Awaitable[Wire]], *without: str) -> None:
    replica = await shop.open(*without)
    wire = await wire_to(f"127.0.0.1:{replica.grpc_port}")
    await over(wire, replica)

    async def joined() -> bool:
        return (await shop.queue.status(EVENT)).joined == 1

    await lost(wire, shop.join("ann"), joined)
    await again(shop.join, "ann")


async def test_a_join_may_be_repeated(shop: Shop, wire_to):
    await join_is_lost(shop, wire_to)
    assert (await shop.queue.status(EVENT)).joined == 1
    await shop.sell()
    await shop.kept()


async def test_a_join_repeated_is_a_second_place_without_the_guard(shop: Shop, wire_to):
    await join_is_lost(shop, wire_to, "one place a user")
    await shop.sell()
    assert any("one place each" in one for one in await shop.broken())


async def test_a_payment_and_a_cancel_may_be_repeated(shop: Shop, wire_to):
    replica = await shop.open()
    wire = await wire_to(f"127.0.0.1:{replica.grpc_port}")
    paid, left = await shop.join_many(2)
    await shop.until(Status.AWAITING_PAYMENT)
    await over(wire, replica)
    await lost(wire, shop.pay(paid), lambda: shop.ledger().confirmed == 1)
    assert (await again(shop.pay, paid)).booking_reference
    await lost(wire, shop.cancel(left), lambda: shop.ledger().cancelled == 1)
    assert (await again(shop.cancel, left)).success
    await shop.until({Status.COMPLETED, Status.CANCELLED})
    assert await shop.statuses() == [Status.COMPLETED, Status.CANCELLED]
    await shop.kept()


# --- from a worker to the Booking Service ------------------------------------------------------


async def every_call_is_cut(
    shop: Shop, wire_to: Callable[..., Awaitable[Wire]], *without: str
) -> None:
    """Two reserves and a confirm, each with its answer lost the first time."""
    wire = await wire_to(shop.sandbox.booking_endpoint)
    replica = await shop.open(*without, grpc_booking_service_endpoint=wire.endpoint)
    await shop.join("first")
    await shop.until(Status.AWAITING_PAYMENT)
    wire.loses_answers = True
    paid, _ = await shop.join_many(2)
    await wait_until(lambda: shop.ledger().creates == 3)
    wire.cut()
    await shop.until(Status.AWAITING_PAYMENT)
    wire.loses_answers = True
    paying = asyncio.ensure_future(shop.pay(paid, via=replica))
    await wait_until(lambda: shop.ledger().confirmed == 1)
    wire.cut()
    await paying


async def test_workers_repeat_what_got_no_answer(shop: Shop, wire_to):
    await every_call_is_cut(shop, wire_to)
    await shop.sell()
    ledger = shop.ledger()
    assert (ledger.creates, ledger.repeats, ledger.confirmed_twice) == (3, 2, 0)
    await shop.kept()


async def many_answers_are_lost(shop: Shop, people: int, till: int) -> None:
    """A whole sale in which some of the answers never come, and some come as errors."""
    faults = shop.sandbox.booking_faults
    faults.lost_answer_rate = 0.25
    faults.hang_share = 0.1
    shop.sandbox.ticket_faults.lost_answer_rate = 0.3
    shop.sandbox.ticket_faults.hang_share = 0
    await shop.open(peer_timeout_seconds=0.3, worker_max_retries=1000)
    ids = await shop.join_many(people)
    await shop.until({Status.AWAITING_PAYMENT, Status.REJECTED}, ids[:till])
    leaving = ids[: till // 4]
    await asyncio.gather(*(shop.cancel(item_id) for item_id in leaving), return_exceptions=True)
    await shop.sell(timeout=20)


@pytest.mark.parametrize("tickets", [30])
async def test_a_sale_goes_well_when_many_answers_are_lost(shop: Shop):
    await many_answers_are_lost(shop, people=40, till=30)
    ledger = shop.ledger()
    assert (ledger.sold, ledger.cancelled) == (30, 7)
    assert ledger.lost_answers > 10
    assert Counter(await shop.statuses()) == {"completed": 30, "cancelled": 7, "sold_out": 3}
    await shop.kept()


async def test_it_books_twice_without_the_idempotency_key(shop: Shop, wire_to):
    await every_call_is_cut(shop, wire_to, "the idempotency key")
    await shop.sell()
    assert any("one booking each" in one for one in await shop.broken())


async def test_bookings_are_left_behind_without_asking_again(shop: Shop, wire_to):
    wire = await wire_to(shop.sandbox.booking_endpoint)
    await shop.open("asking again", grpc_booking_service_endpoint=wire.endpoint)
    await shop.join("first")
    await shop.until(Status.AWAITING_PAYMENT)
    wire.loses_answers = True
    await shop.join_many(2)
    await wait_until(lambda: shop.ledger().creates == 3)
    wire.cut()
    await shop.sell()
    assert any("ledger and queue agree" in one for one in await shop.broken())


# --- from the service to its engine -------------------------------------------------------------


async def test_what_the_engine_answered_may_be_lost_too(shop: Shop, wire_to, tmp_path: Path):
    """Joins and settles took effect, and nobody heard of it: asked again, they are the same."""
    (tmp_path / "e").mkdir()
    wire = await wire_to(shop.engine.socket, tmp_path / "e" / "engine.sock")
    await shop.open(data_dir=str(tmp_path / "e"))
    first = await shop.join("first")
    await shop.until(Status.AWAITING_PAYMENT)
    users = [f"user-{number}" for number in range(20)]
    wire.loses_answers = True
    joining = [asyncio.ensure_future(shop.join(user_id)) for user_id in users]

    async def some_joined() -> bool:
        return (await shop.queue.status(EVENT)).joined > 1

    await wait_until(some_joined)
    wire.cut()
    outcomes = await asyncio.gather(*joining, return_exceptions=True)
    heard = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert (await shop.queue.status(EVENT)).joined > 1 + len(heard)
    assert all("UNAVAILABLE" in repr(one) for one in outcomes if one not in heard)
    places = [await again(shop.join, user_id) for user_id in ["first", *users]]
    assert {first, *heard} <= set(places)
    assert (await shop.queue.status(EVENT)).joined == 1 + len(users)
    await shop.sell()
    assert set(await shop.statuses()) == {Status.COMPLETED}
    await shop.kept()
