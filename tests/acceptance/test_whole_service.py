"""The command itself: killed in the midst of a sale, told to end, and without its engine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import grpc.aio
import pytest

from booking_worker.domain.model import Status
from booking_worker.proto import booking_worker_pb2 as pb
from tests.support.processes import child_environment
from tests.support.served import Served, ServedShop
from tests.support.shop import EVENT, asked
from tests.support.wait import wait_until

TICKETS = 60
BUYERS = 100
ANSWER_SECONDS = 2.0
SLACK_SECONDS = 0.5  # of a test machine that is busy with other things

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def sale(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedShop]:
    # Short, or the engine's socket would have to be elsewhere.
    with TemporaryDirectory(prefix="bw-", dir="/tmp") as directory:
        shop = ServedShop(Path(directory), child_environment(tmp_path_factory), TICKETS)
        await shop.start()
        yield shop
        await shop.end()


async def test_killed_twice_in_the_midst_of_a_sale_nothing_is_lost_and_nothing_twice(
    sale: ServedShop,
):
    sale.sandbox.booking_faults.latency_ms = 20
    service = await sale.serve(WORKER_LEASE_SECONDS=1, PEER_TIMEOUT_SECONDS=0.5)
    ids = await sale.join_many(BUYERS)
    await wait_until(lambda: sale.ledger().creates >= 10)
    await service.kill()
    os.kill(sale.engine_pid, signal.SIGKILL)
    service = await sale.serve()
    assert await sale.join("user-00000") == ids[0]
    await sale.until(Status.AWAITING_PAYMENT, ids[:20])

    heard: list[str] = []

    async def pay(item_id: str) -> None:
        if (await sale.pay(item_id)).status == Status.COMPLETED:
            heard.append(item_id)

    paying = [asyncio.ensure_future(pay(item_id)) for item_id in ids[:20]]
    await wait_until(lambda: heard)
    await service.kill()
    await asyncio.gather(*paying, return_exceptions=True)
    assert sale.engine_runs
    await sale.serve()
    sale.sandbox.booking_faults.latency_ms = 0
    await sale.sell(timeout=30)
    assert await sale.statuses() == ["completed"] * TICKETS + ["sold_out"] * (BUYERS - TICKETS)
    ledger = sale.ledger()
    assert (ledger.creates, ledger.sold, ledger.confirmed_twice) == (TICKETS, TICKETS, 0)
    await sale.kept()


async def unavailable_in_time(service: Served, item_id: str, user_id: str) -> None:
    """Every kind of call is UNAVAILABLE, and says so within 2 s."""
    ours = {"queue_item_id": item_id, "user_id": user_id}
    calls = [
        service.stub.EnqueueBooking(asked("somebody-new")),
        service.stub.GetQueuePosition(pb.GetQueuePositionRequest(**ours)),
        service.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id=EVENT)),
        service.stub.CancelQueueItem(pb.CancelQueueItemRequest(**ours)),
        service.stub.ConfirmPayment(pb.ConfirmPaymentRequest(payment_reference="p", **ours)),
    ]

    async def code(call: grpc.aio.UnaryUnaryCall[object, object]) -> grpc.StatusCode:
        return await call.code()

    began = time.monotonic()
    assert set(await asyncio.gather(*map(code, calls))) == {grpc.StatusCode.UNAVAILABLE}
    assert time.monotonic() - began < ANSWER_SECONDS + SLACK_SECONDS


async def test_without_its_engine_it_says_so_within_2_s_and_recovers_by_itself(sale: ServedShop):
    service = await sale.serve(WORKER_LEASE_SECONDS=1, PEER_TIMEOUT_SECONDS=0.5)
    ids = await sale.join_many(BUYERS)
    await sale.until(Status.AWAITING_PAYMENT, ids[:TICKETS])
    assert await service.ready() == 200
    pid = sale.engine_pid
    os.kill(pid, signal.SIGSTOP)
    await unavailable_in_time(service, ids[-1], sale.owners[ids[-1]])
    assert await service.ready() == 503
    os.kill(pid, signal.SIGKILL)

    async def ready() -> bool:
        return await service.ready() == 200

    await wait_until(ready)
    assert sale.engine_pid != pid
    assert await sale.statuses(ids[:TICKETS]) == ["awaiting_payment"] * TICKETS
    await sale.sell()
    assert await sale.statuses() == ["completed"] * TICKETS + ["sold_out"] * (BUYERS - TICKETS)
    await sale.kept()


async def test_told_to_end_under_load_it_exits_0_and_leaves_nothing_running(sale: ServedShop):
    sale.sandbox.booking_faults.latency_ms = 50
    service = await sale.serve(WORKER_LEASE_SECONDS=30)
    ids = await sale.join_many(BUYERS)
    await wait_until(lambda: sale.ledger().creates >= 5)
    service.terminate()
    assert await service.ended() == 0
    assert not sale.engine_runs
    sale.sandbox.booking_faults.latency_ms = 0
    await sale.serve()
    # Much sooner than any lease ends: nothing was left in anybody's hands.
    await sale.until(Status.AWAITING_PAYMENT, ids[:TICKETS], timeout=10)
    await sale.sell()
    await sale.kept()


async def test_told_twice_it_ends_at_once(sale: ServedShop):
    sale.sandbox.booking_faults.latency_ms = 20_000
    service = await sale.serve(WORKER_LEASE_SECONDS=3, PEER_TIMEOUT_SECONDS=2.5)
    await sale.join_many(5)
    await sale.until(Status.PROCESSING)
    service.terminate()
    await wait_until(lambda: service.logged('"stopping"'))
    began = time.monotonic()
    service.terminate()
    assert await service.ended() == 128 + signal.SIGTERM
    assert time.monotonic() - began < ANSWER_SECONDS
    sale.sandbox.booking_faults.latency_ms = 0
    await sale.serve()
    await sale.sell()
    assert await sale.statuses() == ["completed"] * 5
    await sale.kept()


async def test_an_audit_log_on_a_full_disk_is_told_and_sales_go_on(sale: ServedShop):
    service = await sale.serve(AUDIT_LOG="/dev/full")
    await sale.join_many(5)
    await sale.sell()
    assert await sale.statuses() == ["completed"] * 5

    async def told() -> str:
        health = await service.stub.Health(pb.HealthRequest())
        assert health.status in {"healthy", "degraded"}
        return health.details["feed"] if health.status == "degraded" else ""

    assert "No space left on device" in await wait_until(told)
    assert await service.ready() == 200
