"""Fault 26: the engine is wiped while the service runs; and everything is cold at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest

from booking_worker.domain.model import Status
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.proto import admin_pb2, admin_pb2_grpc
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.queue.layout import LOST
from tests.support.engines import engine_factories
from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop
from tests.support.wait import wait_until

TICKETS: Final = 10
HOLD_SECONDS: Final = 4.0


@pytest.fixture
async def engine_of_its_own(tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = engine_factories()[0](tmp_path / "data", "everysec")
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def shop(engine_of_its_own: EmbeddedEngine, tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(engine_of_its_own, tmp_path, TICKETS, hold_seconds=HOLD_SECONDS)
    await made.start()
    yield made
    await made.end()


async def flushed(shop: Shop) -> None:
    await shop.client.flushall()


async def restarted_without_its_data(shop: Shop) -> None:
    await shop.engine.stop()
    shutil.rmtree(shop.engine.data_dir / "appendonlydir")
    await shop.engine.start()


Wipe = Callable[[Shop], Awaitable[None]]


async def under_way(shop: Shop) -> list[str]:
    """Two have paid, three hold tickets; nobody knows them after the wipe."""
    ids = await shop.join_many(5, name="before")
    await shop.until(Status.AWAITING_PAYMENT, ids)
    for item_id in ids[:2]:
        await shop.pay(item_id)
    await shop.until(Status.COMPLETED, ids[:2])
    return ids


async def join_after(shop: Shop, number: int) -> list[str]:
    """Joins go on, as soon as the engine is there."""
    shop.owners.clear()
    ids = []
    for at in range(number):

        async def joined(at: int = at) -> str:
            try:
                return await shop.join(f"after-{at}")
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return ""

        ids.append(await wait_until(joined))
    return ids


async def paused(shop: Shop, replica: Replica) -> bool:
    status = await replica.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id=EVENT))
    layout = await shop.client.hget("booking-layout", "paused")
    return status.paused and layout == LOST.encode()


async def health(replica: Replica) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await replica._page(replica.http_port, "/healthz"))
    return found


async def resume(replica: Replica) -> str:
    """As `booking-worker queue resume` asks for it."""
    stub = admin_pb2_grpc.BookingWorkerAdminStub(replica.channel)
    answer = await stub.ResumeAdmission(admin_pb2.ResumeAdmissionRequest(operator="kim"))
    return str(answer.paused_because)


@pytest.mark.parametrize("wipe", [flushed, restarted_without_its_data])
async def test_a_wiped_engine_admits_nobody_until_an_operator_resumes(shop: Shop, wipe: Wipe):
    replicas = [await shop.open(), await shop.open()]
    await under_way(shop)
    made = shop.ledger().creates
    await wipe(shop)
    ids = await join_after(shop, 2 * TICKETS)
    for replica in replicas:
        await wait_until(lambda replica=replica: paused(shop, replica))
    # Time enough for claims, refreshes and sweeps of a service that did not know better.
    await wait_until(lambda: shop.ledger().held == 0, timeout=HOLD_SECONDS + 5)
    assert await shop.statuses(ids) == ["waiting"] * len(ids)
    assert shop.ledger().creates == made
    told = await health(replicas[0])
    assert told["status"] == "degraded"
    assert "booking-worker queue resume" in told["message"]
    assert await replicas[0].metric("booking_worker_admission_paused") == 1
    assert await replicas[0].metric("booking_worker_errors_total") >= 1
    assert sum(replica.logged("the engine lost its data") for replica in replicas) >= 2

    assert await resume(replicas[1]) == LOST
    await shop.sell(timeout=20)
    # Two were sold before; three holds had ended by themselves.
    assert sorted(await shop.statuses(ids)) == ["completed"] * 8 + ["sold_out"] * 12
    assert await shop.statuses(ids[:8]) == ["completed"] * 8
    ledger = shop.ledger()
    assert (ledger.sold, ledger.oversold, ledger.refusals) == (TICKETS, 0, 0)
    for replica in replicas:
        assert await replica.stop() == 0
    audit = (shop.directory / "replica-2.audit").read_text()
    assert '"who":"operator:kim","did":"resume"' in audit


async def test_without_the_record_of_the_layout_people_are_admitted_at_once(shop: Shop):
    await shop.open("the record of the layout")
    await under_way(shop)
    await flushed(shop)
    ids = await join_after(shop, 2 * TICKETS)
    # Ten tickets, two sold, three held by people of whom nobody knows.
    await shop.until(Status.AWAITING_PAYMENT, ids[:5], timeout=5)
    assert shop.ledger().oversold == 0  # the Ticket Service is the judge


async def test_who_starts_on_the_wiped_engine_is_told_by_who_knew_it(shop: Shop):
    old = await shop.open()
    await under_way(shop)
    old.freeze()
    await flushed(shop)
    new = await shop.open()
    assert not await paused(shop, new)  # it could not know
    old.thaw()
    for replica in (old, new):
        await wait_until(lambda replica=replica: paused(shop, replica))
    ids = [await shop.join(f"after-{at}", via=new) for at in range(3)]
    assert await shop.statuses(ids) == ["waiting"] * 3
    await resume(new)
    await shop.until(Status.AWAITING_PAYMENT, ids)


async def test_everything_cold_at_once_is_a_first_start_and_oversells_nothing(shop: Shop):
    """Nobody is left who knew: what is sold and held is known to the Ticket Service alone."""
    before = await shop.open()
    await under_way(shop)
    assert await before.stop() == 0
    await restarted_without_its_data(shop)
    await shop.open()
    ids = await join_after(shop, 2 * TICKETS)
    await shop.until(Status.AWAITING_PAYMENT, ids[:5])
    await wait_until(lambda: shop.ledger().held == 5, timeout=HOLD_SECONDS + 5)
    ledger = shop.ledger()
    assert (ledger.sold + ledger.held, ledger.oversold, ledger.refusals) == (7, 0, 0)
