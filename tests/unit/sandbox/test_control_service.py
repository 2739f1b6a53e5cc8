from __future__ import annotations

import dataclasses

import pytest

from booking_worker.proto import sandbox_pb2
from booking_worker.sandbox.control_service import faults_of
from booking_worker.sandbox.faults import Faults
from booking_worker.sandbox.server import Sandbox
from tests.unit.sandbox.conftest import code_of, order


async def test_faults_of_one_service(control, sandbox: Sandbox) -> None:
    await control.SetFaults(
        sandbox_pb2.SetFaultsRequest(
            service="ticket", faults=sandbox_pb2.Faults(down=True, overstate=2)
        )
    )
    assert (sandbox.ticket_faults.down, sandbox.ticket_faults.overstate) == (True, 2)
    assert not sandbox.booking_faults.down
    assert not sandbox.realtime_faults.down


async def test_faults_of_all_services_and_none_again(control, sandbox: Sandbox) -> None:
    all_faults = (sandbox.booking_faults, sandbox.ticket_faults, sandbox.realtime_faults)
    await control.SetFaults(
        sandbox_pb2.SetFaultsRequest(faults=sandbox_pb2.Faults(error_rate=0.25))
    )
    assert {faults.error_rate for faults in all_faults} == {0.25}
    await control.SetFaults(sandbox_pb2.SetFaultsRequest())
    assert {faults.error_rate for faults in all_faults} == {0.0}


async def test_control_works_while_everything_is_down(control, sandbox: Sandbox) -> None:
    sandbox.booking_faults.down = True
    await control.SetFaults(sandbox_pb2.SetFaultsRequest())
    assert not sandbox.booking_faults.down


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_rate": 1.1},
        {"error_rate": -0.1},
        {"lost_answer_rate": 2.0},
        {"hang_share": -1.0},
        {"error_rate": 0.6, "lost_answer_rate": 0.6},
        {"error_rate": float("nan")},
        {"latency_ms": -1.0},
        {"latency_ms": float("inf")},
        {"overstate": -1},
    ],
)
async def test_faults_that_cannot_be(control, sandbox: Sandbox, wrong) -> None:
    request = sandbox_pb2.SetFaultsRequest(faults=sandbox_pb2.Faults(**wrong))
    assert await code_of(control.SetFaults(request)) == "INVALID_ARGUMENT"
    assert sandbox.booking_faults.error_rate == 0.0


async def test_an_unknown_service(control) -> None:
    request = sandbox_pb2.SetFaultsRequest(service="weather")
    assert await code_of(control.SetFaults(request)) == "INVALID_ARGUMENT"


def test_every_fault_can_be_set() -> None:
    fields = {field.name for field in dataclasses.fields(Faults)} - {"seed", "_rng"}
    assert fields == {field.name for field in sandbox_pb2.Faults.DESCRIPTOR.fields}
    message = sandbox_pb2.Faults(
        latency_ms=1.0,
        error_rate=0.25,
        lost_answer_rate=0.5,
        hang_share=0.125,
        overstate=3,
        refuse=True,
        malformed=True,
        down=True,
    )
    faults = faults_of(message)
    assert {name: getattr(faults, name) for name in fields} == {
        name: getattr(message, name) for name in fields
    }


async def test_tickets(control, sandbox: Sandbox) -> None:
    answer = await control.SetTickets(sandbox_pb2.SetTicketsRequest(event_id="show", tickets=500))
    assert answer.available == 500
    sandbox.ledger.create(order("k1", 5))
    fewer = sandbox_pb2.SetTicketsRequest(event_id="show", tickets=4)
    assert await code_of(control.SetTickets(fewer)) == "FAILED_PRECONDITION"
    for wrong in (
        sandbox_pb2.SetTicketsRequest(tickets=4),
        sandbox_pb2.SetTicketsRequest(event_id="show", tickets=-1),
    ):
        assert await code_of(control.SetTickets(wrong)) == "INVALID_ARGUMENT"


async def test_audit(control, sandbox: Sandbox) -> None:
    sandbox.ledger.create(order("k1", 5))
    sandbox.ledger.create(order("k2", 2, event_id="gig"))
    answer = await control.Audit(sandbox_pb2.AuditRequest())
    told = {field.name: getattr(answer, field.name) for field in answer.DESCRIPTOR.fields}
    assert told == dataclasses.asdict(sandbox.ledger.audit())
    assert (await control.Audit(sandbox_pb2.AuditRequest(event_id="gig"))).held == 2


async def test_bookings_come_in_order_and_in_portions(control, sandbox: Sandbox) -> None:
    sandbox.ledger.set_tickets("show", 5000)
    for n in range(2500):
        sandbox.ledger.create(order(f"k{n}"))
    portions = [
        answer.bookings
        async for answer in control.ListBookings(sandbox_pb2.ListBookingsRequest(event_id="show"))
    ]
    assert [len(portion) for portion in portions] == [1000, 1000, 500]
    lines = [line for portion in portions for line in portion]
    assert [line.idempotency_key for line in lines] == [f"k{n}" for n in range(2500)]
    assert (lines[7].user_id, lines[7].ticket_quantity) == ("user-k7", 1)
    assert (lines[7].event_id, lines[7].status) == ("show", "pending")
    assert lines[7].id
    assert lines[7].booking_reference
