from __future__ import annotations

import grpc
import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Lease, Status
from booking_worker.proto import booking_pb2
from booking_worker.sandbox.server import Sandbox
from booking_worker.worker.assignment import Outcome
from tests.support.api import on_one_engine
from tests.support.stage import Stage
from tests.unit.peers.scripted import Refuse
from tests.unit.worker.crew import Crew, booking, confirmed

pytestmark = on_one_engine

REFUSED = booking_pb2.ConfirmBookingResponse(success=False, message="the card was declined")
DOWN = Refuse(grpc.StatusCode.UNAVAILABLE, "down")


async def run(crew: Crew, lease: Lease) -> Outcome:
    return await crew.confirm.run(crew.assignment(lease))


async def test_a_confirmed_booking_completes(stage: Stage, scripted: Crew):
    scripted.script.answers["ConfirmBooking"] = confirmed()
    lease = await stage.confirming()
    assert await run(scripted, lease) is Outcome.CONFIRMED
    record = await stage.item(lease.item_id)
    assert (record.status, record.booking_reference) == (Status.COMPLETED, "REF1")
    (request,) = scripted.script.requests("ConfirmBooking")
    assert (request.booking_id, request.payment_reference) == ("B-ann", "PAY-1")


async def test_repeating_it_charges_once(stage: Stage, crew: Crew, sandbox: Sandbox):
    reserve = await stage.processing()
    await crew.reserve.run(crew.assignment(reserve))
    await stage.queue.ask_confirm(reserve.item_id, "ann", "PAY-1")
    (lease,) = await stage.claim()
    await crew.booking.confirm(lease.booking_id, "PAY-1")
    assert await run(crew, lease) is Outcome.CONFIRMED
    audit = sandbox.ledger.audit()
    assert (audit.sold, audit.confirmed_twice) == (1, 0)


@pytest.mark.parametrize(
    "found, outcome, status",
    [
        (booking("B-ann", status="confirmed"), Outcome.CONFIRMED, Status.COMPLETED),
        (booking("B-ann", status="expired"), Outcome.GONE, Status.EXPIRED),
        (Refuse(grpc.StatusCode.NOT_FOUND, "unknown"), Outcome.GONE, Status.EXPIRED),
        (booking("B-ann"), Outcome.UNCONFIRMED, Status.AWAITING_PAYMENT),
        (
            booking("B-ann", payment_status="processing"),
            Outcome.UNCONFIRMED,
            Status.AWAITING_PAYMENT,
        ),
    ],
    ids=["paid directly", "expired", "unknown", "open", "being paid"],
)
async def test_a_refusal_is_settled_by_what_the_booking_is(
    stage: Stage, scripted: Crew, found: object, outcome: Outcome, status: Status
):
    scripted.script.answers |= {"ConfirmBooking": REFUSED, "GetBooking": found}
    lease = await stage.confirming()
    pay_by = (await stage.item(lease.item_id)).pay_by_ms
    assert await run(scripted, lease) is outcome
    record = await stage.item(lease.item_id)
    assert record.status is status
    if status is Status.AWAITING_PAYMENT:
        assert record.deadline_ms == pay_by
    if status is not Status.COMPLETED:
        assert record.message == "the card was declined"


@pytest.mark.parametrize(
    "answers",
    [
        {"ConfirmBooking": DOWN},
        {"ConfirmBooking": REFUSED, "GetBooking": DOWN},
        {"ConfirmBooking": REFUSED, "GetBooking": Refuse(grpc.StatusCode.INVALID_ARGUMENT)},
    ],
    ids=["confirm", "get", "get refused"],
)
async def test_no_answer_is_retried(stage: Stage, scripted: Crew, answers: dict[str, object]):
    scripted.script.answers |= answers
    lease = await stage.confirming()
    assert await run(scripted, lease) is Outcome.RETRY
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.CONFIRMING, 1)


async def test_it_waits_for_the_breaker_with_all_its_attempts(stage: Stage, scripted: Crew):
    for _ in range(5):
        scripted.booking.breaker.record_failure()
    scripted.booking.breaker._trial_at += 60
    lease = await stage.confirming()
    assert await run(scripted, lease) is Outcome.HANDED_BACK
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.CONFIRMING, 0)


async def test_an_ended_lease_makes_no_second_call(stage: Stage, scripted: Crew):
    lease = await stage.confirming()

    async def refused_too_late(request: object) -> object:
        await stage.queue.hand_back(lease, asked=True)
        return REFUSED

    scripted.script.answers |= {"ConfirmBooking": refused_too_late}
    with pytest.raises(Fenced):
        await run(scripted, lease)
    assert scripted.script.requests("GetBooking") == []
