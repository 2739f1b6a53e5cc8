from __future__ import annotations

import asyncio
import time

import pytest

from booking_worker.proto import booking_pb2, booking_pb2_grpc
from booking_worker.sandbox.server import Sandbox
from tests.support.wait import wait_until
from tests.unit.sandbox.conftest import code_of


def create(key: str = "k1") -> booking_pb2.CreateBookingRequest:
    return booking_pb2.CreateBookingRequest(
        user_id="ann", event_id="show", ticket_quantity=1, idempotency_key=key
    )


async def test_an_error_does_nothing(bookings, sandbox: Sandbox) -> None:
    sandbox.booking_faults.error_rate = 1.0
    assert await code_of(bookings.CreateBooking(create())) == "UNAVAILABLE"
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.errors) == (0, 1)


async def test_an_answer_that_never_comes_was_done_all_the_same(bookings, sandbox) -> None:
    sandbox.booking_faults.lost_answer_rate = sandbox.booking_faults.hang_share = 1.0
    assert await code_of(bookings.CreateBooking(create(), timeout=0.2)) == "DEADLINE_EXCEEDED"
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.lost_answers) == (1, 1)


async def test_a_hanging_call_does_not_keep_it_from_stopping(bookings, sandbox: Sandbox) -> None:
    sandbox.booking_faults.lost_answer_rate = sandbox.booking_faults.hang_share = 1.0
    hanging = asyncio.ensure_future(code_of(bookings.CreateBooking(create())))
    await wait_until(lambda: sandbox.ledger.audit().creates)
    began = time.monotonic()
    await sandbox.stop()
    assert time.monotonic() - began < 5
    assert await hanging in {"UNAVAILABLE", "CANCELLED", "UNKNOWN"}


async def test_latency(bookings, sandbox: Sandbox) -> None:
    sandbox.booking_faults.latency_ms = 100
    began = time.monotonic()
    await bookings.CreateBooking(create())
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("rate", [0.3])
async def test_under_faults_asking_again_makes_one_booking_each(
    bookings: booking_pb2_grpc.BookingServiceAsyncStub, sandbox: Sandbox, rate: float
) -> None:
    sandbox.ledger.set_tickets("show", 1000)
    sandbox.booking_faults.error_rate = sandbox.booking_faults.lost_answer_rate = rate
    sandbox.booking_faults.hang_share = 0.1

    async def insist(key: str) -> None:
        while await code_of(bookings.CreateBooking(create(key), timeout=0.3)) != "OK":
            pass

    await asyncio.gather(*(insist(f"k{n}") for n in range(100)))
    audit = sandbox.ledger.audit()
    assert (audit.creates, audit.held, audit.duplicate_bookings) == (100, 100, 1)  # one user
    assert audit.lost_answers > 10
    assert audit.errors > 10
    assert audit.repeats > 10
    assert audit.balanced
