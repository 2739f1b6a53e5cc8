"""GetQueuePosition."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from booking_worker.domain.model import Held, Status
from booking_worker.proto import booking_worker_pb2 as pb
from tests.support.api import EVENT, Api, failure, field_at_fault, on_one_engine

pytestmark = on_one_engine


def asked(item_id: str, user_id: str = "ann") -> pb.GetQueuePositionRequest:
    return pb.GetQueuePositionRequest(queue_item_id=item_id, user_id=user_id)


async def test_a_position_counts_those_ahead(api: Api):
    ids = {user: await api.join(user) for user in ("ann", "bob", "cid")}
    seen = await api.position(ids["cid"], "cid")
    assert seen.success
    assert (seen.position, seen.queue_length, seen.status) == (3, 3, "waiting")
    assert seen.estimated_wait_seconds == -1
    assert (seen.booking_id, seen.pay_by_unix_ms) == ("", 0)
    await api.claim()
    seen = await api.position(ids["cid"], "cid")
    assert (seen.position, seen.queue_length) == (2, 2)
    assert seen.estimated_wait_seconds > 0


async def test_who_holds_a_booking_hears_of_it_and_of_the_time_left(api: Api):
    item_id = await api.join()
    await api.queue.settle_held(await api.claim(), Held("booking-9", "REF", 60_000))
    seen = await api.position(item_id)
    place = (await api.queue.positions(EVENT, [item_id]))[0]
    assert place is not None
    assert (seen.status, seen.position, seen.booking_id) == ("awaiting_payment", 0, "booking-9")
    assert seen.pay_by_unix_ms == place.pay_by_ms
    assert 0 < place.remaining_ms <= 60_000
    assert seen.estimated_wait_seconds == 0


@pytest.mark.parametrize("status", Status)
async def test_every_status_is_shown_by_its_name_and_with_a_message(api: Api, status: Status):
    seen = await api.position(await api.bring_to(status))
    assert seen.status == ("awaiting_payment" if status is Status.RELEASING else status)
    assert seen.message


async def test_an_item_shows_itself_to_its_owner_alone_and_the_attempt_is_recorded(api: Api):
    item_id = await api.join("ann")
    error = await failure(api.position(item_id, "eve"))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert api.records == [
        {
            "who": "user:eve",
            "refused": "position",
            "item_id": item_id,
            "why": "the item is another user's",
        }
    ]


@pytest.mark.parametrize(
    "item_id",
    [
        f"AAAAAAAAAAAA.{EVENT}",
        "AAAAAAAAAAAA.nobody-joined",
        "AAAAAAAAAAAA.~!!",
        "never-an-id",
        "x" * 1024,
        "{concert}",
    ],
)
async def test_an_unknown_item_is_not_found(api: Api, item_id):
    await api.join()
    error = await failure(api.stub.GetQueuePosition(asked(item_id)))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "item_id, user_id, at_fault",
    [
        ("", "ann", "queue_item_id"),
        ("a\x00b", "ann", "queue_item_id"),
        ("x" * 1025, "ann", "queue_item_id"),
        ("x" * 5_000_000, "ann", "queue_item_id"),
        (f"AAAAAAAAAAAA.{EVENT}", "", "user_id"),
        (f"AAAAAAAAAAAA.{EVENT}", "a b", "user_id"),
        (f"AAAAAAAAAAAA.{EVENT}", "x" * 129, "user_id"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, item_id, user_id, at_fault):
    error = await failure(api.stub.GetQueuePosition(asked(item_id, user_id)))
    assert field_at_fault(error) == at_fault


async def test_many_who_ask_at_once_each_get_their_own(api: Api):
    ids = [await api.join(f"user-{n}") for n in range(40)]
    seen = await asyncio.gather(
        *(api.position(item_id, f"user-{n}") for n, item_id in enumerate(ids))
    )
    assert [place.position for place in seen] == list(range(1, 41))
