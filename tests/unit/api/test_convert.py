from __future__ import annotations

from dataclasses import fields

import pytest

from booking_worker.api import convert
from booking_worker.api.operations import QueueStatus
from booking_worker.domain.errors import QueueFull
from booking_worker.domain.model import (
    BookingRequest,
    EventStatus,
    ItemRecord,
    Joined,
    Place,
    Rate,
    Status,
)
from booking_worker.proto import admin_pb2, booking_worker_pb2

MOST = 2**31 - 1


def books(**changes) -> EventStatus:
    """Books in which every number is another one."""
    given = {
        field.name: number
        for number, field in enumerate(fields(EventStatus), start=1)
        if field.type == "int"
    }
    given |= {
        "event_id": "e",
        "capacity": None,
        "capacity_known": True,
        "capacity_exact": True,
        "sold_out": False,
        "paused": False,
        "paused_because": "",
        "rate": Rate(1.5, 2, 3),
    }
    return EventStatus(**(given | changes))


def place(**changes) -> Place:
    given = {
        "item_id": "i",
        "user_id": "ann",
        "status": Status.WAITING,
        "position": 3,
        "queue_length": 9,
        "admissions_per_second": 0.6,
        "message": "",
        "booking_id": "",
        "booking_reference": "",
        "pay_by_ms": 0,
        "remaining_ms": 0,
    }
    return Place(**(given | changes))


@pytest.mark.parametrize("status", Status)
def test_every_status_has_something_to_say(status: Status):
    again = convert.joined(Joined("i", 0, already_queued=True, status=status), 0)
    assert again.message
    seen = convert.place(place(status=status, position=0))
    assert seen.message
    assert seen.status != "releasing"


def test_a_place_has_the_message_of_its_item_before_that_of_its_status():
    assert convert.place(place(message="the seats are taken")).message == "the seats are taken"


def test_a_place_has_an_estimate():
    assert convert.place(place()).estimated_wait_seconds == 5
    assert convert.place(place(admissions_per_second=0.0)).estimated_wait_seconds == -1


def test_numbers_beyond_the_contract_are_its_largest():
    seen = convert.place(place(position=2**40, queue_length=2**40))
    assert (seen.position, seen.queue_length, seen.estimated_wait_seconds) == (MOST, MOST, MOST)
    assert convert.joined(Joined("i", 2**40, False, Status.WAITING), -1).queue_position == MOST
    status = convert.queue_status(QueueStatus(books(waiting=2**40, completed=2**40), 2**40))
    assert (status.queue_length, status.active_workers) == (MOST, MOST)
    assert status.completed == 2**40


def test_a_refusal_says_why():
    refused = convert.refused(QueueFull("e", 3))
    assert not refused.success
    assert refused.estimated_wait_seconds == -1
    assert "full" in refused.message


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "open"),
        ({"joined": 0}, "nobody has joined"),
        ({"sold_out": True}, "sold out"),
        (
            {"paused": True, "paused_because": "the hall is flooded"},
            "admission is paused; everybody keeps their place",
        ),
        ({"paused": True}, "admission pauses until the tickets left have been counted again"),
    ],
)
def test_the_status_of_a_queue_says_how_it_is(changes, message):
    status = convert.queue_status(QueueStatus(books(**changes), 5))
    assert status.message == message
    assert status.active_workers == 5


def test_a_payment_is_confirmed_or_will_be():
    done = convert.confirmed(place(status=Status.COMPLETED, booking_reference="R"))
    assert (done.success, done.status, done.booking_reference) == (True, "completed", "R")
    waits = convert.confirmed(place(status=Status.CONFIRMING))
    assert (waits.success, waits.status) == (True, "confirming")
    assert "will be confirmed" in waits.message


def test_operators_see_every_field_of_the_books():
    given = books(capacity=77)
    message = convert.event_status(given)
    for name in admin_pb2.EventStatus.DESCRIPTOR.fields_by_name:
        if name != "rate":
            assert getattr(message, name) == getattr(given, name), name
    assert (message.rate.weight, message.rate.at_ms, message.rate.since_ms) == given.rate
    assert not convert.event_status(books()).HasField("capacity")
    assert {field.name for field in fields(EventStatus)} == set(
        admin_pb2.EventStatus.DESCRIPTOR.fields_by_name
    )


def test_operators_see_every_field_of_an_item():
    numbers = {
        field.name: number
        for number, field in enumerate(fields(ItemRecord), start=1)
        if field.type == "int"
    }
    texts = {field.name: field.name for field in fields(ItemRecord) if field.type == "str"}
    request = BookingRequest("event_id", "user_id", ("A",), 1, 2.5, "EUR", {"k": "v"})
    record = ItemRecord(
        **numbers, **texts, status=Status.RELEASING, cancel_requested=True, request=request
    )
    message = convert.item(record)
    for name in admin_pb2.Item.DESCRIPTOR.fields_by_name:
        if name != "request":
            assert getattr(message, name) == getattr(record, name), name
    assert {field.name for field in fields(ItemRecord)} == set(
        admin_pb2.Item.DESCRIPTOR.fields_by_name
    )
    assert message.request == admin_pb2.Request(
        seat_numbers=["A"], total_amount=2.5, currency="EUR", metadata={"k": "v"}
    )


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.PROCESSING, Status.AWAITING_PAYMENT])
def test_a_cancel_says_what_it_came_to(status):
    answer = convert.cancelled(status)
    assert isinstance(answer, booking_worker_pb2.CancelQueueItemResponse)
    assert "cancelled" in answer.message
