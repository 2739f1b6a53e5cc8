"""Fault 18: the Booking or the Ticket Service down, slow, flapping, late or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from booking_worker.domain.model import FINAL, Status
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.sandbox.faults import Faults
from booking_worker.sandbox.journal import is_admission
from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop, read_journal
from tests.support.wait import wait_until

TICKETS: Final = 20
BUYERS: Final = 30
SETTINGS: Final[dict[str, Any]] = {
    "peer_timeout_seconds": 0.25,
    "worker_max_retries": 3,
    "worker_retry_interval": 0.02,
    "worker_pool_size": 5,
}
BREAKER_AND_RETRIES: Final = 40
"""Calls that may fail before the breaker opens, and trials while it is open: no storm."""

TROUBLES: Final[Mapping[str, dict[str, Any]]] = {
    "down": {"down": True},
    "answering after the deadline": {"lost_answer_rate": 1.0, "hang_share": 1.0},
    "committing and losing the answer": {"lost_answer_rate": 1.0, "hang_share": 0.0},
    "too slow": {"latency_ms": 2_000.0},
    "wrong": {"malformed": True},
}


@pytest.fixture
def tickets() -> int:
    return TICKETS


async def in_trouble(shop: Shop, trouble: str, *without: str) -> tuple[Replica, list[str]]:
    """The Booking Service gets into trouble before anybody is in line; its breaker is open."""
    shop.sandbox.booking_faults.become(Faults(**TROUBLES[trouble]))
    replica = await shop.open(*without, **SETTINGS)
    ids = await shop.join_many(BUYERS)
    return replica, ids


async def breaker_is_open(replica: Replica) -> bool:
    """Whether health says so: of any peer."""
    details = (await replica.stub.Health(pb.HealthRequest())).details
    return any("its breaker is" in finding for finding in details.values())


async def first_admissions(shop: Shop) -> list[int]:
    """The numbers of those who were admitted, in the order in which they first were."""
    lines = read_journal(shop.directory.glob("*.audit"))
    return list(dict.fromkeys(line.seq for line in lines if is_admission(line)))


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_the_head_keeps_its_place_until_the_booking_service_is_back(shop: Shop, trouble: str):
    replica, ids = await in_trouble(shop, trouble)
    await wait_until(lambda: breaker_is_open(replica))
    began = shop.ledger()
    await wait_until(lambda: _trials_went_on(shop, began.errors + began.creates + began.repeats))
    # Nobody has lost a place or heard of failure, and the service was left in peace.
    assert not FINAL.intersection(await shop.statuses())
    now = shop.ledger()
    assert now.errors + now.creates + now.repeats < BREAKER_AND_RETRIES
    shop.sandbox.booking_faults.become(Faults())
    await shop.until(Status.AWAITING_PAYMENT, ids[:TICKETS])
    await shop.sell()
    assert await shop.statuses() == ["completed"] * TICKETS + ["sold_out"] * (BUYERS - TICKETS)
    assert shop.ledger().creates == TICKETS
    await shop.kept()
    assert await first_admissions(shop) == list(range(1, TICKETS + 1))


def _trials_went_on(shop: Shop, before: int) -> bool:
    """Whether it was tried again, or (where no call gets as far as the books) must have been."""
    ledger = shop.ledger()
    return ledger.errors + ledger.creates + ledger.repeats > before or before == 0


async def test_people_hear_of_failure_without_the_breaker(shop: Shop):
    _, ids = await in_trouble(shop, "down", "the breaker")
    await shop.until(Status.FAILED, ids[:5])
    assert shop.ledger().errors >= 5 * 4


async def test_a_service_that_flaps_costs_nobody_their_place(shop: Shop):
    faults = shop.sandbox.booking_faults
    faults.become(Faults(error_rate=0.6))
    await shop.open(**{**SETTINGS, "worker_max_retries": 50})
    ids = await shop.join_many(BUYERS)
    for _ in range(4):
        faults.down = not faults.down
        before = shop.ledger().errors
        await wait_until(lambda: shop.ledger().errors > before)  # noqa: B023 - awaited here
    faults.become(Faults(error_rate=0.2))
    await shop.sell()
    assert await shop.statuses() == ["completed"] * TICKETS + ["sold_out"] * (BUYERS - TICKETS)
    assert shop.ledger().errors > 0
    assert shop.booked().keys() == set(ids[:TICKETS])
    await shop.kept()


async def test_who_is_refused_is_answered_and_the_line_moves_on(shop: Shop):
    """A refusal is an answer: it opens no breaker, and nobody is left without theirs."""
    shop.sandbox.booking_faults.become(Faults(refuse=True))
    replica, ids = await shop.open(**SETTINGS), await shop.join_many(BUYERS)
    await shop.until(Status.REJECTED, ids)
    assert not await breaker_is_open(replica)
    assert {place.message for place in (await shop.places()).values() if place} == {
        "sandbox: told to refuse"
    }
    await shop.kept()


# --- the Ticket Service --------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["down", "too slow", "wrong"])
async def test_without_the_ticket_service_nobody_is_admitted_and_nobody_lost(
    shop: Shop, trouble: str
):
    shop.sandbox.ticket_faults.become(Faults(**TROUBLES[trouble]))
    replica = await shop.open(**SETTINGS)
    ids = await shop.join_many(BUYERS)
    await wait_until(lambda: breaker_is_open(replica))
    assert set(await shop.statuses()) == {Status.WAITING}
    shop.sandbox.ticket_faults.become(Faults())
    await shop.sell()
    assert await shop.statuses(ids[:TICKETS]) == ["completed"] * TICKETS
    assert await shop.statuses(ids[TICKETS:]) == ["sold_out"] * (BUYERS - TICKETS)
    assert shop.ledger().refusals == 0
    await shop.kept()


async def refused_without_the_ticket_service(shop: Shop, *without: str) -> list[str]:
    """Those who are refused while nobody can say whether the tickets ran out."""
    replica = await shop.open(*without, **SETTINGS)
    await shop.until(Status.AWAITING_PAYMENT, [await shop.join("first")])
    shop.sandbox.ticket_faults.become(Faults(down=True))
    await wait_until(lambda: breaker_is_open(replica))
    shop.sandbox.booking_faults.become(Faults(refuse=True))
    return await shop.join_many(5)


async def test_to_be_refused_without_the_ticket_service_costs_nobody_an_attempt(shop: Shop):
    ids = await refused_without_the_ticket_service(shop)
    # More often than they have attempts, and nobody hears of it.
    await wait_until(lambda: _asked(shop, "CreateBooking") > len(ids) * 5)
    assert set(await shop.statuses(ids)) == {Status.PROCESSING}
    assert {(await shop.queue.item(item_id)).attempts for item_id in ids} == {0}
    shop.sandbox.ticket_faults.become(Faults())
    await shop.until(Status.REJECTED, ids)
    shop.sandbox.booking_faults.become(Faults())
    await shop.sell()
    await shop.kept()


async def test_to_be_refused_without_the_ticket_service_is_the_end_without_waiting(shop: Shop):
    ids = await refused_without_the_ticket_service(shop, "waiting for the judge")
    await shop.until(Status.FAILED, ids)


async def test_a_release_waits_for_the_ticket_service(shop: Shop):
    await shop.open(**SETTINGS)
    ids = await shop.join_many(BUYERS)
    await shop.until(Status.AWAITING_PAYMENT, ids[:TICKETS])
    shop.sandbox.ticket_faults.become(Faults(down=True))
    leaving = ids[:8]
    for item_id in leaving:
        await shop.cancel(item_id)
    await wait_until(lambda: shop.ledger().cancelled >= 1)
    shop.sandbox.ticket_faults.become(Faults())
    await shop.until(Status.CANCELLED, leaving)
    await shop.sell()
    ledger = shop.ledger()
    assert (ledger.sold, ledger.unreleased, ledger.refusals) == (TICKETS, 0, 0)
    assert await shop.statuses(ids[8:]) == ["completed"] * TICKETS + ["sold_out"] * 2
    await shop.kept()


# --- one that overstates ---------------------------------------------------------------------------


async def three_are_sold_as_five(shop: Shop, *without: str, heals: bool = True) -> list[str]:
    """The Ticket Service says 5 when there are 3; it may know better once somebody is refused."""
    shop.sandbox.ledger.set_tickets(EVENT, 3)
    shop.sandbox.ticket_faults.overstate = 2
    # So long that it is healed between a refusal and its answer.
    shop.sandbox.booking_faults.latency_ms = 400 if heals else 0
    await shop.open(*without, **{**SETTINGS, "peer_timeout_seconds": 1.5})
    await shop.join_many(8)
    await wait_until(lambda: shop.ledger().refusals, every=0.005)
    if heals:
        shop.sandbox.ticket_faults.overstate = 0
    shop.sandbox.booking_faults.latency_ms = 0
    await shop.sell()
    return await shop.statuses()


async def test_who_was_let_in_in_vain_keeps_the_place_and_hears_that_it_is_sold_out(shop: Shop):
    statuses = await three_are_sold_as_five(shop)
    # Whom of five let in at once it gives the three tickets is up to the Booking Service.
    assert sorted(statuses[:5]) == ["completed"] * 3 + ["sold_out"] * 2
    assert statuses[5:] == ["sold_out"] * 3
    await shop.kept()


async def test_who_was_let_in_in_vain_is_rejected_without_weighing_the_refusal(shop: Shop):
    assert "rejected" in await three_are_sold_as_five(shop, "weighing refusals")


async def test_nobody_is_left_without_an_answer_by_one_that_never_knows_better(shop: Shop):
    statuses = await three_are_sold_as_five(shop, heals=False)
    assert statuses.count("completed") == shop.ledger().sold == 3
    assert set(statuses) == {"completed", "rejected"}
    await shop.kept()


async def test_a_ticket_service_that_says_0_has_everybody_told(shop: Shop):
    shop.sandbox.ledger.set_tickets(EVENT, 0)
    await shop.open(**SETTINGS)
    await shop.join_many(BUYERS)
    await shop.until(Status.SOLD_OUT)
    ledger = shop.ledger()
    assert (ledger.creates, ledger.refusals) == (0, 0)
    await shop.kept()


async def test_it_says_0_while_tickets_are_held_and_the_line_is_kept(shop: Shop):
    shop.sandbox.ledger.set_tickets(EVENT, 3)
    await shop.open(**SETTINGS)
    ids = await shop.join_many(BUYERS)
    await shop.until(Status.AWAITING_PAYMENT, ids[:3])
    await wait_until(lambda: _asked(shop) > 3)
    assert set(await shop.statuses(ids[3:])) == {Status.WAITING}
    await shop.cancel(ids[0])
    await shop.until(Status.AWAITING_PAYMENT, ids[3:4])
    await shop.sell()
    assert await shop.statuses() == ["cancelled", *["completed"] * 3, *["sold_out"] * (BUYERS - 4)]
    await shop.kept()


async def test_people_are_sent_home_too_early_without_the_certainty(shop: Shop):
    shop.sandbox.ledger.set_tickets(EVENT, 3)
    await shop.open("the certainty", **SETTINGS)
    ids = await shop.join_many(BUYERS)
    await shop.until(Status.SOLD_OUT, ids[3:])
    await shop.cancel(ids[0])
    await shop.sell()
    assert any("sold while there is demand" in one for one in await shop.broken())


def _asked(shop: Shop, method: str = "CheckAvailability") -> int:
    """How often a service was asked: what is left, if nothing else is said."""
    shop.sandbox.ledger.save()
    rows = shop.sandbox.ledger._books.connection.execute(
        "SELECT count(*) FROM journal WHERE method = ?", (method,)
    )
    number: int = rows.fetchone()[0]
    return number
