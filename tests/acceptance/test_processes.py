"""Several processes as one service: they share the ports, and any of them may be lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import grpc.aio
import pytest

from booking_worker.api.listening import bind, every_host
from booking_worker.domain.model import Status
from booking_worker.sandbox.processes import ProcessFailed
from tests.support.processes import child_environment, needs_proc, processes_in
from tests.support.served import Served, ServedShop
from tests.support.wait import wait_until

TICKETS = 40
BUYERS = 60
CONNECTIONS = 40
AT_ONCE_SECONDS = 3.0

pytestmark = [pytest.mark.timeout(90), needs_proc]


@pytest.fixture
async def sale(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedShop]:
    with TemporaryDirectory(prefix="bw-", dir="/tmp") as directory:
        arguments = ("serve", "--processes", "2")
        shop = ServedShop(Path(directory), child_environment(tmp_path_factory), TICKETS, arguments)
        await shop.start()
        yield shop
        await shop.end()
        await wait_until(lambda: not processes_in(Path(directory)))


def children(service: Served) -> list[int]:
    """The processes that serve now."""
    told = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in told.split()}
    return [pid for pid, command in commands.items() if b"--child" in command]


async def both_ready(service: Served, said: str = "") -> None:
    """Return once both processes are ready, and know it, and health says it so."""

    async def both() -> bool:
        try:
            return f"{said}2 of 2 are ready" in (await service.health())["details"]["processes"]
        except OSError:
            return False  # the connection was one to a process that is no more

    await wait_until(both, timeout=20)


async def all_well(service: Served) -> None:
    """Return once both processes are ready, know it, and have not ended lately."""
    await both_ready(service, "healthy: ")


async def degraded(service: Served) -> str:
    """What health says of the processes, once not all of them are ready."""

    async def told() -> str:
        try:
            said: str = (await service.health())["details"]["processes"]
        except OSError:
            return ""
        # One that has just started does not know of the others yet.
        return said if said.startswith("degraded") and "they start" not in said else ""

    found: str = await wait_until(told)
    return found


def is_free(port: int) -> bool:
    try:
        bind(every_host(), port).close()
    except OSError:
        return False
    return True


def connections(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_both_serve_from_the_same_ports(sale: ServedShop):
    service = await sale.serve()
    assert sorted(children(service)) == sorted(service.pids)
    assert service.logged("processes  2, with 10 workers between them") == 1
    before = {pid: connections(pid) for pid in service.pids}
    address = f"127.0.0.1:{service.grpc_port}"
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    taken = {pid: connections(pid) - before[pid] for pid in service.pids}
    # By chance all to one: once in 2^39.
    assert all(number > 0 for number in taken.values()), taken
    for channel in channels:
        await channel.close()
    await all_well(service)
    assert await service.metric("booking_worker_worker_slots") == 10
    assert await service.metric("booking_worker_processes") == 2
    await sale.join_many(BUYERS)
    await sale.sell()
    assert await sale.statuses() == ["completed"] * TICKETS + ["sold_out"] * (BUYERS - TICKETS)

    async def counted() -> bool:
        return await service.metric("booking_worker_joins_total") == BUYERS

    await wait_until(counted)
    await sale.kept()


async def join(sale: ServedShop, number: int) -> None:
    """As a gateway does: again, when a connection was lost."""
    while True:
        try:
            await sale.join(f"user-{number:05}")
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        else:
            return


async def test_one_is_killed_in_the_midst_of_a_sale_and_nothing_acknowledged_is_lost(
    sale: ServedShop,
):
    sale.sandbox.booking_faults.latency_ms = 20
    service = await sale.serve(WORKER_LEASE_SECONDS=1, PEER_TIMEOUT_SECONDS=0.5)
    sums: list[float] = []

    async def scrape() -> None:
        while True:
            sums.append(await service.metric("booking_worker_joins_total"))
            await asyncio.sleep(0.05)

    scraping = asyncio.create_task(scrape())
    for number in range(BUYERS // 2):
        await join(sale, number)

    async def all_counted() -> bool:
        return bool(sums) and sums[-1] >= BUYERS // 2

    await wait_until(all_counted)
    looking = asyncio.create_task(degraded(service))
    _, spared = children(service)
    killed = set()
    while not looking.done():
        # One of the two. Again, as health looks once a second, and it may be back before that.
        for other in set(children(service)) - {spared}:
            killed.add(other)
            os.kill(other, signal.SIGKILL)
        await asyncio.wait({looking}, timeout=0.5)
    said = await looking
    assert "1 of 2 are ready" in said
    assert "SIGKILL, and starts again" in said
    assert await service.ready() == 200
    for number in range(BUYERS // 2, BUYERS):
        await join(sale, number)
    await both_ready(service)  # who was killed three times in a row is not trusted at once
    assert not killed & set(children(service))
    assert len(children(service)) == 2
    await sale.sell(timeout=30)
    scraping.cancel()
    assert sums == sorted(sums)
    assert len(sale.owners) == BUYERS
    ledger = sale.ledger()
    assert (ledger.creates, ledger.sold, ledger.confirmed_twice) == (TICKETS, TICKETS, 0)
    assert await service.metric("booking_worker_process_restarts_total") == len(killed)
    await sale.kept()


async def test_when_the_supervisor_is_killed_its_processes_end_and_the_next_takes_over(
    sale: ServedShop,
):
    service = await sale.serve(WORKER_LEASE_SECONDS=1, PEER_TIMEOUT_SECONDS=0.5)
    ids = await sale.join_many(BUYERS)
    pids = service.pids
    await service.kill()
    for port in (service.grpc_port, service.http_port):
        await wait_until(lambda port=port: is_free(port), AT_ONCE_SECONDS)
    assert not set(pids) & set(processes_in(sale.directory))
    assert sale.engine_runs
    service = await sale.serve()
    assert await sale.join("user-00000") == ids[0]
    await sale.sell()
    await sale.kept()


async def test_told_to_end_under_load_it_exits_0_and_leaves_nothing_running(sale: ServedShop):
    sale.sandbox.booking_faults.latency_ms = 50
    service = await sale.serve(WORKER_LEASE_SECONDS=30)
    ids = await sale.join_many(BUYERS)
    await wait_until(lambda: sale.ledger().creates >= 5)
    # As a service manager does it, that signals every process of the group.
    for pid in children(service):
        os.kill(pid, signal.SIGTERM)
    service.terminate()
    assert await service.ended() == 0
    assert processes_in(sale.directory) == []
    sale.sandbox.booking_faults.latency_ms = 0
    await sale.serve()
    # Much sooner than any lease ends: nothing was left in anybody's hands.
    await sale.until(Status.AWAITING_PAYMENT, ids[:TICKETS], timeout=10)
    await sale.sell()
    await sale.kept()


async def test_told_twice_it_ends_at_once_and_so_do_all(sale: ServedShop):
    sale.sandbox.booking_faults.latency_ms = 20_000
    service = await sale.serve(WORKER_LEASE_SECONDS=3, PEER_TIMEOUT_SECONDS=2.5)
    await sale.join_many(5)
    await sale.until(Status.PROCESSING)
    service.terminate()
    await wait_until(lambda: service.logged('"stopping"') == 3)
    service.terminate()
    assert await service.ended() == 128 + signal.SIGTERM
    await wait_until(
        lambda: not set(service.pids) & set(processes_in(sale.directory)), AT_ONCE_SECONDS
    )
    sale.sandbox.booking_faults.latency_ms = 0
    await sale.serve()
    await sale.sell()
    await sale.kept()


@pytest.mark.parametrize("port", ["GRPC_PORT", "HTTP_PORT"])
async def test_a_port_of_another_is_refused_even_if_that_one_would_share_it(
    sale: ServedShop, port: str
):
    with bind(every_host(), 0, shared=True) as theirs:
        number = theirs.getsockname()[1]
        with pytest.raises(ProcessFailed, match=rf"Error: {port}: got {number}, which cannot"):
            await sale.serve(**{port: number})


async def test_what_is_wrong_with_one_is_wrong_from_the_start_and_said_once(sale: ServedShop):
    with pytest.raises(ProcessFailed, match=r"process 1 ended with exit code 2 before") as caught:
        await sale.serve(AUDIT_LOG="/no/such/directory")
    assert str(caught.value).count("AUDIT_LOG: got") == 1
    assert processes_in(sale.directory) == []
