"""Fault 5, the books: a replica that lags takes the master's place, and acknowledged writes are gone.

What was lost are joins, admissions, holds and payments. The replica is cut off, the sale goes on
for a moment, and the master is killed; the services find the replica where the master was.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from booking_worker.domain.model import Status
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.server_binary import find_server
from booking_worker.queue import keys
from booking_worker.sandbox import promises
from booking_worker.sandbox.journal import AuditLine
from tests.support import queue_audit
from tests.support.server import HOST, Server
from tests.support.shop import EVENT, Shop, read_journal
from tests.support.stage import a_join
from tests.support.wait import wait_until

TICKETS: Final = 6
HELD: Final = {Status.AWAITING_PAYMENT, Status.COMPLETED}
CHANGES: Final = keys.of_event(EVENT)["changes"]


@dataclass
class Pair:
    """A master and its replica; services reach whichever the socket in ``data_dir`` leads to."""

    data_dir: Path
    master: Server
    follower: Server
    last: tuple[int, int] = (0, 0)
    """The last change that the replica got before it was cut off."""
    failed_over_at_ms: int = 0

    def lead_to(self, server: Server) -> None:
        link, new = self.data_dir / "engine.sock", self.data_dir / "new.sock"
        new.symlink_to(server.options["unixsocket"])
        new.replace(link)

    async def cut(self) -> None:
        """The replica has all so far, and gets nothing of what comes."""
        _, offset, _ = await self.master.ask("ROLE")

        async def has_all() -> bool:
            _, _, _, state, got = await self.follower.ask("ROLE")
            return state == b"connected" and int(got) >= offset

        await wait_until(has_all)
        await self.follower.ask("REPLICAOF", "NO", "ONE")
        newest = await self.follower.ask("XREVRANGE", CHANGES, "+", "-", "COUNT", 1)
        if newest:
            self.last = number(newest[0][0].decode())

    async def fail_over(self) -> None:
        await self.master.kill()
        seconds, microseconds = await self.follower.ask("TIME")
        self.failed_over_at_ms = int(seconds) * 1000 + int(microseconds) // 1000
        self.lead_to(self.follower)

    def was_lost(self, line: AuditLine) -> bool:
        return number(line.change_id) > self.last and line.at_ms < self.failed_over_at_ms


def number(change_id: str) -> tuple[int, int]:
    ms, at = change_id.split("-")[:2]
    return int(ms), int(at)


@contextmanager
def short_directory() -> Iterator[Path]:
    """Sockets need a short path."""
    path = Path(tempfile.mkdtemp(prefix="bw-pair-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@asynccontextmanager
async def running_pair() -> AsyncIterator[Pair]:
    with short_directory() as path:
        binary = find_server()
        options = [{"unixsocket": str(path / f"{name}.sock")} for name in "ab"]
        master = Server(binary, path / "a", options[0])
        follower = Server(binary, path / "b", {**options[1], "replicaof": f"{HOST} {master.port}"})
        pair = Pair(path, master, follower)
        try:
            await master.start()
            await follower.start()
            pair.lead_to(master)
            await wait_until(lambda: in_step(master))
            yield pair
        finally:
            await master.stop()
            await follower.stop()


async def in_step(master: Server) -> bool:
    return len((await master.ask("ROLE"))[2]) == 1


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with running_pair() as made:
        yield made


@pytest.fixture
async def shop(pair: Pair, tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(EmbeddedEngine(pair.data_dir), tmp_path, TICKETS)
    await made.start()
    await made.queue.read_layout()
    yield made
    await made.end()


async def line_up(shop: Shop, number: int, name: str = "user") -> list[str]:
    """As many people in line, by the test's own hand."""
    ids = []
    for at in range(number):
        join = a_join(f"{name}-{at}")
        await shop.queue.join(EVENT, [join])
        ids.append(shop.took(join.item_id, f"{name}-{at}"))
    return ids


async def known_again(shop: Shop) -> list[str]:
    """Forget the joins that were lost; answers them."""

    async def places() -> dict[str, Any] | None:
        with suppress(Exception):
            return await shop.places()
        return None

    found = await wait_until(places)
    lost = [item_id for item_id, place in found.items() if place is None]
    for item_id in lost:
        del shop.owners[item_id]
    return lost


async def broken(shop: Shop, pair: Pair) -> list[str]:
    """The promises that were not kept to who is known, and what is wrong with the books."""
    books = await queue_audit.read(shop.client, EVENT, ends=False)
    problems = queue_audit.balance(books)
    problems += [str(mended) for mended in await shop.queue.sweep(EVENT)]
    places = await shop.places()
    for replica in shop.replicas:
        assert await replica.stop() == 0, replica.log.read_text()[-2000:]
    lines = [
        line for line in read_journal(shop.directory.glob("*.audit")) if line.item_id in places
    ]
    verdict = promises.judge(
        [line for line in lines if not pair.was_lost(line)],
        shop.ledger(),
        [booking for booking in shop.sandbox.ledger.bookings(EVENT) if booking.key in places],
        [
            promises.Place(item_id, shop.owners[item_id], str(place.status) if place else "")
            for item_id, place in places.items()
        ],
    )
    problems += [
        f"{one.promise}: {one.example}" for one in verdict.broken if one.promise != "in order"
    ]
    # Who has a booking was admitted before, though it may be written nowhere.
    again = readmissions(shop)
    lines = [line for line in lines if line.change_id not in again]
    problems += [f"in order: {case.says}" for case in promises._inversions(lines)]
    return problems


def readmissions(shop: Shop) -> set[str]:
    return {
        line["change_id"]
        for file in shop.directory.glob("*.audit")
        for line in map(json.loads, file.read_text().splitlines())
        if line["why"] == "has a booking from before the engine was replaced"
    }


# --- all tickets go in the moment that is lost ----------------------------------------------------


async def sold_in_the_lost_moment(shop: Shop, pair: Pair, *without: str) -> list[str]:
    """Six of twelve get the tickets and two of them pay; then none of that has happened."""
    ids = await line_up(shop, 2 * TICKETS)
    await pair.cut()
    await shop.open(*without)
    await shop.until(Status.AWAITING_PAYMENT, ids[:TICKETS])
    for item_id in ids[:2]:
        assert (await shop.pay(item_id)).status == Status.COMPLETED
    late = await shop.join("late")
    await pair.fail_over()
    assert await known_again(shop) == [late]
    return ids


async def test_who_has_a_booking_gets_it_back_and_nobody_is_admitted_in_vain(
    shop: Shop, pair: Pair
):
    ids = await sold_in_the_lost_moment(shop, pair)
    # Who paid before is found to have paid at the next look.
    await shop.sell(unpaid=ids[:2], timeout=25)
    assert await shop.statuses(ids) == ["completed"] * TICKETS + ["sold_out"] * TICKETS
    ledger = shop.ledger()
    assert (ledger.sold, ledger.oversold, ledger.refusals) == (TICKETS, 0, 0)
    assert (ledger.duplicate_bookings, ledger.confirmed_twice) == (0, 0)
    assert await broken(shop, pair) == []


async def test_without_the_memory_of_bookings_they_are_told_sold_out(shop: Shop, pair: Pair):
    ids = await sold_in_the_lost_moment(shop, pair, "the memory of bookings")
    await shop.sell(timeout=25)
    assert set(await shop.statuses(ids)) == {"sold_out"}
    assert shop.ledger().oversold == 0
    assert any("is confirmed; its item" in one for one in await broken(shop, pair))


# --- the books of the replica are old -------------------------------------------------------------


async def old_books(shop: Shop, pair: Pair, *without: str) -> list[str]:
    """The replica thinks that five are left, and that two wait who have gone."""
    replica = await shop.open(*without)
    (first,) = await line_up(shop, 1, "first")
    await shop.until(Status.AWAITING_PAYMENT, [first])

    async def five_are_left() -> bool:
        return (await shop.queue.status(EVENT)).capacity == TICKETS - 1

    await wait_until(five_are_left)
    replica.freeze()
    ids = await line_up(shop, 2 * TICKETS)
    await pair.cut()
    for item_id in ids[:2]:
        await shop.queue.cancel(item_id, shop.owners[item_id], "changed my mind", "test")
    replica.thaw()
    await shop.until(Status.AWAITING_PAYMENT, ids[2 : TICKETS + 1])
    # Who does not wait for the answer is quicker than it.
    shop.sandbox.ticket_faults.latency_ms = 500
    await pair.fail_over()
    assert await known_again(shop) == []
    await shop.until(HELD, ids[2 : TICKETS + 1])
    return [first, *ids]


async def test_admission_pauses_until_capacity_was_asked_for(shop: Shop, pair: Pair):
    first, *ids = await old_books(shop, pair)
    await shop.sell(timeout=25)
    assert await shop.statuses([first, *ids[2 : TICKETS + 1]]) == ["completed"] * TICKETS
    assert shop.ledger().refusals == 0
    assert await broken(shop, pair) == []


async def test_without_the_pause_people_are_admitted_in_vain(shop: Shop, pair: Pair):
    await old_books(shop, pair, "the pause for another engine")
    await shop.sell(timeout=25)
    ledger = shop.ledger()
    assert ledger.refusals > 0
    assert ledger.oversold == 0  # the Ticket Service is the judge


# --- under load -----------------------------------------------------------------------------------


@dataclass
class Crowd:
    """People who join, one after another, and a till that is always open."""

    shop: Shop
    acknowledged: dict[str, bool] = field(default_factory=dict)
    """Every join -> whether the replica had it."""
    cut: bool = False

    async def join_for_ever(self, name: str) -> None:
        at = 0
        while True:
            with suppress(grpc.aio.AioRpcError):
                self.acknowledged[await self.shop.join(f"{name}-{at}", timeout=3)] = not self.cut
            at += 1

    async def pay_for_ever(self) -> None:
        while True:
            with suppress(Exception):
                await self.shop._sell_on((), None)
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def at_it(self) -> AsyncIterator[None]:
        doing = [asyncio.ensure_future(self.join_for_ever(f"crowd-{n}")) for n in range(4)]
        doing.append(asyncio.ensure_future(self.pay_for_ever()))
        try:
            yield
        finally:
            for one in doing:
                one.cancel()
            await asyncio.gather(*doing, return_exceptions=True)

    async def more(self, number: int) -> None:
        enough = len(self.acknowledged) + number
        await wait_until(lambda: len(self.acknowledged) >= enough, timeout=20)


async def test_a_sale_by_two_replicas_goes_on_from_what_the_new_master_knows(
    pair: Pair, tmp_path: Path, record_property: Any
):
    shop = Shop(EmbeddedEngine(pair.data_dir), tmp_path, 150, hold_seconds=20)
    await shop.start()
    try:
        await shop.queue.read_layout()
        for _ in range(2):
            await shop.open(payment_timeout_seconds=2)
        crowd = Crowd(shop)
        async with crowd.at_it():
            await crowd.more(60)
            # What is acknowledged from now on may be lost.
            crowd.cut = True
            await pair.cut()
            await crowd.more(60)
            await pair.fail_over()
            await crowd.more(120)
        lost = await known_again(shop)
        record_property("joins_lost", len(lost))
        assert lost
        assert not [item_id for item_id in lost if crowd.acknowledged.get(item_id)]
        await shop.sell(timeout=40)
        ledger = shop.ledger()
        assert (ledger.oversold, ledger.duplicate_bookings, ledger.refusals) == (0, 0, 0)
        assert await broken(shop, pair) == []
    finally:
        await shop.end()
