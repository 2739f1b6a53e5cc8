from __future__ import annotations

from typing import Any

import grpc
import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Lease, Status, Task
from booking_worker.proto import booking_pb2, ticket_pb2
from booking_worker.sandbox.server import Sandbox
from booking_worker.worker.assignment import Outcome
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, LIMITS, Stage
from tests.unit.peers.scripted import Refuse
from tests.unit.worker.crew import Crew, booking, cancelled, given_back

pytestmark = on_one_engine

DOWN = Refuse(grpc.StatusCode.UNAVAILABLE, "down")
CANCEL_REFUSED = booking_pb2.CancelBookingResponse(success=False, message="not now")
OPEN = booking("B-ann")
PAYING = booking("B-ann", payment_status="processing")
PAID = booking("B-ann", status="confirmed")
GONE = booking("B-ann", status="cancelled")


async def run(crew: Crew, lease: Lease) -> Outcome:
    return await crew.release.run(crew.assignment(lease))


async def expired(stage: Stage, **held: Any) -> Lease:
    """The lease of the release of a hold that was not paid in time."""
    await stage.held_item(**held)
    await stage.clock.advance(LIMITS.payment_timeout_ms)
    await stage.queue.expire(EVENT)
    return await stage.claim_one(Task.RELEASE)


def then(*answers: object) -> Any:
    """Answers one after the other, the last for ever."""
    left = list(answers)

    async def answer(request: object) -> object:
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


async def test_a_hold_that_was_not_paid_is_given_back(stage: Stage, scripted: Crew):
    scripted.script.answers |= {
        "GetBooking": OPEN,
        "CancelBooking": cancelled(),
        "ReleaseTickets": given_back(),
    }
    lease = await expired(stage, reservation_id="R1")
    before = (await stage.status()).capacity
    assert await run(scripted, lease) is Outcome.RELEASED
    assert [name for name, _ in scripted.script.asked] == [
        "GetBooking",
        "CancelBooking",
        "ReleaseTickets",
    ]
    (cancel,) = scripted.script.requests("CancelBooking")
    assert (cancel.booking_id, cancel.reason) == ("B-ann", "not paid in time")
    assert scripted.script.requests("ReleaseTickets")[0].reservation_id == "R1"
    assert (await stage.item(lease.item_id)).status is Status.EXPIRED
    assert (await stage.status()).capacity == (before or 0) + 1


async def test_a_cancelled_hold_is_given_back(stage: Stage, scripted: Crew):
    scripted.script.answers |= {"GetBooking": OPEN, "CancelBooking": cancelled()}
    lease = await stage.releasing(reason="changed my mind")
    assert await run(scripted, lease) is Outcome.RELEASED
    record = await stage.item(lease.item_id)
    assert (record.status, record.message) == (Status.CANCELLED, "changed my mind")
    assert scripted.script.requests("ReleaseTickets") == []


async def test_repeating_it_gives_back_once(stage: Stage, crew: Crew, sandbox: Sandbox):
    """The worker before died after all calls and before the settle."""
    reserve = await stage.processing()
    await crew.reserve.run(crew.assignment(reserve))
    await stage.queue.cancel(reserve.item_id, "ann", "no", "user:ann")
    lease = await stage.claim_one(Task.RELEASE)
    assert crew.ticket is not None
    await crew.booking.cancel(lease.booking_id, "no")
    await crew.ticket.release(lease.reservation_id)
    assert await run(crew, lease) is Outcome.GONE
    assert (await stage.item(lease.item_id)).status is Status.CANCELLED
    audit = sandbox.ledger.audit()
    assert audit.balanced
    assert (audit.cancelled, audit.unreleased, audit.held) == (1, 0, 0)
    assert await crew.keeper.left(EVENT) == 10
    assert (await stage.status()).capacity == 10


async def test_tickets_of_a_booking_that_was_cancelled_before_are_given_back_too(
    stage: Stage, crew: Crew, sandbox: Sandbox
):
    """The worker before died between the cancel and the release of the reservation."""
    reserve = await stage.processing()
    await crew.reserve.run(crew.assignment(reserve))
    await stage.queue.cancel(reserve.item_id, "ann", "no", "user:ann")
    lease = await stage.claim_one(Task.RELEASE)
    await crew.booking.cancel(lease.booking_id, "no")
    assert sandbox.ledger.audit().unreleased == 1
    assert await run(crew, lease) is Outcome.GONE
    assert sandbox.ledger.audit().unreleased == 0


async def test_what_is_paid_is_not_taken_away(stage: Stage, scripted: Crew):
    scripted.script.answers["GetBooking"] = PAID
    lease = await expired(stage)
    assert await run(scripted, lease) is Outcome.PAID
    record = await stage.item(lease.item_id)
    assert (record.status, record.booking_reference) == (Status.COMPLETED, "REF1")
    assert scripted.script.requests("CancelBooking") == []


@pytest.mark.parametrize("by_user", [False, True], ids=["expiry", "cancel"])
async def test_what_is_being_paid_has_grace_once(stage: Stage, scripted: Crew, by_user: bool):
    scripted.script.answers |= {"GetBooking": PAYING, "CancelBooking": cancelled()}
    lease = await (stage.releasing() if by_user else expired(stage))
    assert await run(scripted, lease) is Outcome.PAYING
    record = await stage.item(lease.item_id)
    assert record.status is Status.AWAITING_PAYMENT
    assert record.deadline_ms == stage.clock.now + LIMITS.payment_grace_ms
    assert scripted.script.requests("CancelBooking") == []

    await stage.clock.advance(LIMITS.payment_grace_ms)
    await stage.queue.expire(EVENT)
    assert await run(scripted, await stage.claim_one(Task.RELEASE)) is Outcome.RELEASED


async def test_a_booking_that_is_gone_ends_the_hold(stage: Stage, scripted: Crew):
    scripted.script.answers["GetBooking"] = GONE
    lease = await expired(stage)
    before = await stage.status()
    assert await run(scripted, lease) is Outcome.GONE
    assert (await stage.item(lease.item_id)).status is Status.EXPIRED
    after = await stage.status()
    assert (after.capacity, after.capacity_exact) == (before.capacity, False)


@pytest.mark.parametrize(
    "found, outcome, status",
    [
        (PAID, Outcome.PAID, Status.COMPLETED),
        (PAYING, Outcome.PAYING, Status.AWAITING_PAYMENT),
        (GONE, Outcome.GONE, Status.EXPIRED),
    ],
    ids=["paid", "being paid", "gone"],
)
async def test_a_refused_cancel_is_decided_by_what_the_booking_has_become(
    stage: Stage, scripted: Crew, found: object, outcome: Outcome, status: Status
):
    scripted.script.answers |= {"GetBooking": then(OPEN, found), "CancelBooking": CANCEL_REFUSED}
    lease = await expired(stage)
    assert await run(scripted, lease) is outcome
    assert (await stage.item(lease.item_id)).status is status


async def test_a_lease_is_kept_from_call_to_call(
    stage: Stage, scripted: Crew, monkeypatch: pytest.MonkeyPatch
):
    """Each call may take as long as a call may: no two of them under one extension."""
    done: list[str] = []
    extend = stage.queue.extend

    async def extended(lease: Lease) -> int:
        done.append("extend")
        return await extend(lease)

    def noted(name: str, answer: object) -> Any:
        async def ask(_: object) -> object:
            done.append(name)
            return answer

        return ask

    monkeypatch.setattr(stage.queue, "extend", extended)
    scripted.script.answers |= {
        "GetBooking": noted("get", OPEN),
        "CancelBooking": noted("cancel", CANCEL_REFUSED),
    }
    assert await run(scripted, await expired(stage)) is Outcome.RETRY
    assert done == ["get", "extend", "cancel", "extend", "get"]


@pytest.mark.parametrize(
    "answers",
    [
        {"GetBooking": DOWN},
        {"GetBooking": OPEN, "CancelBooking": DOWN},
        {"GetBooking": OPEN, "CancelBooking": CANCEL_REFUSED},
        {"GetBooking": OPEN, "CancelBooking": cancelled(), "ReleaseTickets": DOWN},
        {"GetBooking": Refuse(grpc.StatusCode.INVALID_ARGUMENT)},
    ],
    ids=["get", "cancel", "cancel refused for good", "tickets", "get refused"],
)
async def test_what_cannot_be_done_now_is_retried(
    stage: Stage, scripted: Crew, answers: dict[str, object]
):
    scripted.script.answers |= answers
    lease = await expired(stage, reservation_id="R1")
    assert await run(scripted, lease) is Outcome.RETRY
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.RELEASING, 1)


async def test_a_release_that_the_ticket_service_keeps_waiting_uses_up_no_attempt(
    stage: Stage, scripted: Crew
):
    scripted.script.answers |= {"GetBooking": OPEN, "CancelBooking": cancelled()}
    assert scripted.ticket is not None
    for _ in range(5):
        scripted.ticket.breaker.record_failure()
    lease = await expired(stage, reservation_id="R1")
    assert await run(scripted, lease) is Outcome.HANDED_BACK
    record = await stage.item(lease.item_id)
    assert (record.status, record.attempts) == (Status.RELEASING, 0)


async def test_tickets_that_are_not_taken_back_are_left_to_the_next_refresh(
    stage: Stage, scripted: Crew
):
    refused = ticket_pb2.ReleaseTicketsResponse(success=False, message="what reservation?")
    scripted.script.answers |= {
        "GetBooking": OPEN,
        "CancelBooking": cancelled(),
        "ReleaseTickets": refused,
    }
    lease = await expired(stage, reservation_id="R1")
    before = await stage.status()
    assert await run(scripted, lease) is Outcome.GONE
    after = await stage.status()
    assert (after.capacity, after.capacity_exact) == (before.capacity, False)


async def test_an_ended_lease_cancels_nothing(stage: Stage, scripted: Crew):
    lease = await expired(stage)

    async def looked_too_late(request: object) -> object:
        await stage.queue.hand_back(lease, asked=True)
        return OPEN

    scripted.script.answers["GetBooking"] = looked_too_late
    with pytest.raises(Fenced):
        await run(scripted, lease)
    assert scripted.script.requests("CancelBooking") == []
