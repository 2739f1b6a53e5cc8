from __future__ import annotations

import asyncio

import grpc
import pytest

from booking_worker.domain import details
from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import BookingRequest, Lease, Status, Task
from booking_worker.notify.messages import Result, message_of
from booking_worker.sandbox.server import Sandbox
from booking_worker.worker.assignment import Outcome
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage, a_join
from tests.unit.peers.scripted import Refuse, ScriptedServer
from tests.unit.worker.crew import Crew, available, booking

pytestmark = on_one_engine

REFUSED = Refuse(grpc.StatusCode.FAILED_PRECONDITION, "seat 12 is taken")
DOWN = Refuse(grpc.StatusCode.UNAVAILABLE, "down")


async def run(crew: Crew, lease: Lease) -> Outcome:
    return await crew.reserve.run(crew.assignment(lease))


async def test_a_booking_is_held(stage: Stage, scripted: Crew):
    scripted.script.answers["CreateBooking"] = booking("B7", booking_reference="REF7")
    lease = await stage.processing(seats=2)
    assert await run(scripted, lease) is Outcome.HELD
    record = await stage.item(lease.item_id)
    assert record.status is Status.AWAITING_PAYMENT
    assert (record.booking_id, record.booking_reference) == ("B7", "REF7")
    (request,) = scripted.script.requests("CreateBooking")
    assert request.idempotency_key == lease.item_id
    assert (request.user_id, request.event_id, request.ticket_quantity) == ("ann", EVENT, 2)
    assert dict(request.metadata) == {"from": "test", "total_amount": "12.50", "currency": "EUR"}


async def test_repeating_it_finds_the_same_booking(stage: Stage, crew: Crew, sandbox: Sandbox):
    lease = await stage.processing()
    await crew.booking.create((await stage.item(lease.item_id)).request, lease.item_id)
    assert await run(crew, lease) is Outcome.HELD
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.repeats, audit.pending) == (1, 1, 1)


async def test_who_has_paid_already_is_not_asked_to_pay_again(stage: Stage, scripted: Crew):
    """As after a failover that lost the payment: the next look finds it."""
    paid = booking("B7", status="confirmed", booking_reference="REF7")
    scripted.script.answers |= {"CreateBooking": paid, "GetBooking": paid}
    item_id = await stage.join_one()
    await stage.capacity(1)
    assert await run(scripted, await stage.claim_one()) is Outcome.HELD
    await stage.clock.advance(1)
    await scripted.queue.expire(EVENT)
    lease = await stage.claim_one(Task.RELEASE)
    assert await scripted.release.run(scripted.assignment(lease)) is Outcome.PAID
    assert (await stage.item(item_id)).status is Status.COMPLETED
    told = [message for message in map(message_of, await stage.changes()) if message]
    assert told == [Result("ann", EVENT, "B7", True, "paid directly", "REF7")]
    assert scripted.script.requests("CancelBooking") == []


async def test_no_answer_is_retried(stage: Stage, scripted: Crew):
    scripted.script.answers["CreateBooking"] = DOWN
    lease = await stage.processing()
    assert await run(scripted, lease) is Outcome.RETRY
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.PROCESSING, 1)


async def test_the_failure_that_opens_the_breaker_uses_up_no_attempt(stage: Stage, scripted: Crew):
    scripted.script.answers["CreateBooking"] = DOWN
    for _ in range(4):
        scripted.booking.breaker.record_failure()
    lease = await stage.processing()
    assert await run(scripted, lease) is Outcome.HANDED_BACK
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts, record.crashes) == (Status.PROCESSING, 0, 0)


async def test_a_wrong_set_up_refuses_nobody(stage: Stage, scripted: Crew):
    """What a proxy denies is no word of the Booking Service's on whom it denies it to."""
    denied = Refuse(grpc.StatusCode.PERMISSION_DENIED, "RBAC: access denied")
    scripted.script.answers |= {"CreateBooking": denied, "CheckAvailability": available(9)}
    await stage.capacity(9)
    items = await stage.join_many(9)
    outcomes = [await run(scripted, lease) for lease in await stage.claim(9)]
    assert outcomes == [*[Outcome.RETRY] * 4, *[Outcome.HANDED_BACK] * 5]
    assert not scripted.booking.breaker.allows
    assert Status.REJECTED not in await scripted.statuses(items)


async def test_an_event_that_the_booking_service_does_not_know_is_tried_again(
    stage: Stage, scripted: Crew
):
    unknown = Refuse(grpc.StatusCode.NOT_FOUND, "no such event")
    scripted.script.answers |= {"CreateBooking": unknown, "CheckAvailability": available(5)}
    lease = await stage.processing()
    assert await run(scripted, lease) is Outcome.RETRY
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.PROCESSING, 1)


async def test_what_the_breaker_kept_from_being_asked_is_back_at_its_place(
    stage: Stage, scripted: Crew
):
    for _ in range(5):
        scripted.booking.breaker.record_failure()
    lease = await stage.processing()
    scripted.booking.breaker._trial_at += 60
    assert await run(scripted, lease) is Outcome.HANDED_BACK
    assert scripted.script.asked == []
    assert (await stage.item(lease.item_id)).status is Status.WAITING


async def test_a_refusal_is_final_while_there_are_tickets(stage: Stage, scripted: Crew):
    scripted.script.answers |= {"CreateBooking": REFUSED, "CheckAvailability": available(2)}
    lease = await stage.processing(seats=2)
    assert await run(scripted, lease) is Outcome.REJECTED
    record = await stage.item(lease.item_id)
    assert (record.status, record.message) == (Status.REJECTED, "seat 12 is taken")


async def test_a_refusal_for_lack_of_tickets_is_nobodys_choice(stage: Stage, scripted: Crew):
    scripted.script.answers |= {"CreateBooking": REFUSED, "CheckAvailability": available(1)}
    lease = await stage.processing(seats=2)
    others = await stage.join_many(3)
    assert await run(scripted, lease) is Outcome.SHORT
    record = await stage.item(lease.item_id)
    assert (record.status, record.position, record.seq) == (Status.WAITING, 1, lease.seq)
    assert await scripted.statuses(others) == [Status.WAITING] * 3
    assert (await stage.status()).capacity == 0


async def test_who_could_never_fit_is_told_so(stage: Stage, scripted: Crew):
    scripted.script.answers |= {"CreateBooking": REFUSED, "CheckAvailability": available(1)}
    lease = await stage.processing(seats=2)
    await run(scripted, lease)
    await scripted.keeper.left(EVENT)
    await stage.claim()
    assert (await stage.item(lease.item_id)).status is Status.SOLD_OUT


async def test_refusals_are_weighed_together(stage: Stage, scripted: Crew):
    """100 refusals at once are not 100 questions to the Ticket Service."""
    scripted.script.answers |= {"CreateBooking": REFUSED, "CheckAvailability": available(0)}
    await stage.capacity(100)
    await stage.join_many(50)
    leases = await stage.claim(50)
    outcomes = await asyncio.gather(*(run(scripted, lease) for lease in leases))
    assert outcomes == [Outcome.SHORT] * 50
    assert len(scripted.script.requests("CheckAvailability")) < 10


async def test_without_a_ticket_service_a_refusal_is_final(stage: Stage, peers: ScriptedServer):
    peers.script.answers["CreateBooking"] = REFUSED
    async with Crew(stage, peers.endpoint) as alone:
        assert await run(alone, await stage.processing()) is Outcome.REJECTED
    assert peers.script.requests("CheckAvailability") == []


async def test_a_refusal_that_cannot_be_weighed_is_retried(stage: Stage, scripted: Crew):
    scripted.script.answers |= {"CreateBooking": REFUSED, "CheckAvailability": DOWN}
    lease = await stage.processing()
    assert await run(scripted, lease) is Outcome.RETRY
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.PROCESSING, 1)


@pytest.mark.parametrize("failures", [4, 5])
async def test_a_refusal_waits_for_the_ticket_service_that_is_away(
    stage: Stage, scripted: Crew, failures: int
):
    """Neither its own failure, if that opened the breaker, nor any later one costs an attempt."""
    scripted.script.answers |= {"CreateBooking": REFUSED, "CheckAvailability": DOWN}
    assert scripted.ticket is not None
    for _ in range(failures):
        scripted.ticket.breaker.record_failure()
    scripted.ticket.breaker._trial_at += 60
    lease = await stage.processing()
    assert await run(scripted, lease) is Outcome.HANDED_BACK
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.PROCESSING, 0)
    # Not before it may be back: the Booking Service would refuse again in vain.
    assert record.deadline_ms > stage.clock.now
    assert await stage.claim() == []


async def test_one_that_the_ticket_service_cannot_judge_is_a_dead_letter_in_the_end(
    stage: Stage, scripted: Crew
):
    """It answers (a refusal is an answer), so nothing is waited for."""
    unknown = Refuse(grpc.StatusCode.NOT_FOUND, "no such event")
    scripted.script.answers |= {"CreateBooking": REFUSED, "CheckAvailability": unknown}
    lease = await stage.processing()
    outcomes = [await run(scripted, lease)]
    while outcomes[-1] is Outcome.RETRY:
        await stage.clock.advance(60_000)
        await stage.queue.expire(EVENT)
        outcomes.append(await run(scripted, await stage.claim_one()))
    assert outcomes == [*[Outcome.RETRY] * stage.limits.max_retries, Outcome.FAILED]


async def test_an_ended_lease_makes_no_second_call(stage: Stage, scripted: Crew):
    lease = await stage.processing()

    async def refused_too_late(request: object) -> Refuse:
        await stage.queue.hand_back(lease, asked=True)
        return REFUSED

    scripted.script.answers |= {"CreateBooking": refused_too_late}
    with pytest.raises(Fenced):
        await run(scripted, lease)
    assert scripted.script.requests("CheckAvailability") == []


async def test_a_booking_that_was_cancelled_meanwhile_is_to_be_released(
    stage: Stage, scripted: Crew
):
    lease = await stage.processing()

    async def slow(request: object) -> object:
        await stage.queue.cancel(lease.item_id, "ann", "changed my mind", "user:ann")
        return booking("B7")

    scripted.script.answers["CreateBooking"] = slow
    assert await run(scripted, lease) is Outcome.HELD
    assert (await stage.item(lease.item_id)).status is Status.RELEASING


async def test_a_refusal_of_who_cancelled_meanwhile_is_a_cancel(stage: Stage, scripted: Crew):
    lease = await stage.processing()

    async def slow(request: object) -> object:
        await stage.queue.cancel(lease.item_id, "ann", "changed my mind", "user:ann")
        return REFUSED

    scripted.script.answers |= {"CreateBooking": slow, "CheckAvailability": available(5)}
    await run(scripted, lease)
    assert (await stage.item(lease.item_id)).status is Status.CANCELLED


async def test_named_seats_go_to_the_service(stage: Stage, scripted: Crew):
    scripted.script.answers["CreateBooking"] = booking()
    request = BookingRequest(EVENT, "ann", ("A1", "A2"), 2, 10.0, "EUR", {})
    join = a_join("ann", 2)._replace(details=details.pack(request))
    await stage.queue.join(EVENT, [join])
    await stage.capacity(5)
    assert await run(scripted, await stage.claim_one()) is Outcome.HELD
    (asked,) = scripted.script.requests("CreateBooking")
    assert list(asked.seat_numbers) == ["A1", "A2"]
