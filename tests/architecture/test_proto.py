from __future__ import annotations

import dataclasses
from types import ModuleType

import pytest

from booking_worker.domain.model import BookingRequest, EventStatus, ItemRecord, Rate
from booking_worker.proto import (
    admin_pb2,
    booking_pb2,
    booking_worker_pb2,
    realtime_pb2,
    ticket_pb2,
)

SERVICES = [
    (booking_worker_pb2, "booking_worker.v1.BookingWorkerService"),
    (admin_pb2, "booking_worker.v1.BookingWorkerAdmin"),
    (booking_pb2, "booking.v1.BookingService"),
    (ticket_pb2, "ticket.v1.TicketService"),
    (realtime_pb2, "realtime.v1.RealtimeService"),
]


@pytest.mark.parametrize("module, name", SERVICES, ids=lambda x: x if isinstance(x, str) else "")
def test_services_keep_their_names_on_the_wire(module: ModuleType, name: str):
    (service,) = module.DESCRIPTOR.services_by_name.values()
    assert service.full_name == name


@pytest.mark.parametrize("module, name", SERVICES, ids=lambda x: x if isinstance(x, str) else "")
def test_files_do_not_meet_a_users_own_in_protobufs_pool(module: ModuleType, name: str):
    assert module.DESCRIPTOR.name.startswith("booking_worker/proto/")


def fields(message: str) -> set[str]:
    return set(admin_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name)


def test_an_operator_sees_every_field_of_an_item_and_of_the_books():
    assert fields("Item") == {field.name for field in dataclasses.fields(ItemRecord)}
    assert fields("EventStatus") == {field.name for field in dataclasses.fields(EventStatus)}
    assert fields("Rate") == set(Rate._fields)
    assert fields("Request") == set(BookingRequest._fields) - fields("Item")
