"""BookingWorkerAdmin."""

from __future__ import annotations

import grpc
import pytest

from booking_worker.domain.model import Held, Status, Task
from booking_worker.proto import admin_pb2 as pb
from booking_worker.proto import booking_worker_pb2 as worker_pb
from tests.support.api import EVENT, Api, failure, field_at_fault, on_one_engine

pytestmark = on_one_engine

NOWHERE = f"AAAAAAAAAAAA.{EVENT}"


async def test_events_are_listed_by_name(api: Api):
    await api.join(event_id="b")
    await api.join(event_id="a")
    assert (await api.admin.ListEvents(pb.ListEventsRequest())).event_ids == ["a", "b"]


async def test_the_books_of_an_event_are_those_of_the_queue(api: Api):
    await api.join("ann", seat_count=2)
    await api.join("bob")
    await api.queue.settle_held(await api.claim(), Held("b", "R", None))
    status = await api.admin.GetEventStatus(pb.GetEventStatusRequest(event_id=EVENT))
    assert (status.event_id, status.waiting, status.awaiting_payment) == (EVENT, 1, 1)
    assert (status.held_seats, status.joined, status.admitted) == (2, 2, 1)
    assert status.capacity_known
    assert not status.HasField("capacity")
    assert status.rate.weight > 0
    question = await api.queue.ask_capacity(EVENT)
    await api.queue.set_capacity(EVENT, question, 40)
    status = await api.admin.GetEventStatus(pb.GetEventStatusRequest(event_id=EVENT))
    assert status.capacity == 40
    assert status.total_seats == 42


async def listed(api: Api, *statuses: str, offset: int = 0, limit: int = 0) -> list[str]:
    answer = await api.admin.ListItems(
        pb.ListItemsRequest(event_id=EVENT, statuses=statuses, offset=offset, limit=limit)
    )
    return [item.user_id for item in answer.items]


async def test_items_are_listed_in_the_order_of_the_line_by_pages_and_statuses(api: Api):
    users = [f"u{n}" for n in range(6)]
    for user in users:
        await api.join(user)
    await api.queue.settle_held(await api.claim(), Held("b", "R", None))
    await api.queue.settle_retry(await api.claim(), 0, "down")
    await api.claim()
    assert await listed(api) == ["u3", "u4", "u5", "u0", "u2", "u1"]
    assert await listed(api, "waiting") == ["u3", "u4", "u5"]
    assert await listed(api, "processing") == ["u2"]
    assert await listed(api, "failed", "awaiting_payment") == ["u0", "u1"]
    assert await listed(api, offset=1, limit=3) == ["u4", "u5", "u0"]
    assert await listed(api, offset=4) == ["u2", "u1"]
    assert await listed(api, "processing", "failed", offset=1) == ["u1"]
    assert await listed(api, offset=6) == []
    assert await listed(api, offset=2**40) == []


async def test_an_item_has_all_that_is_known_of_it(api: Api):
    item_id = await api.join(
        "ann", seat_numbers=["A1", "A2"], total_amount=10, currency="EUR", metadata={"k": "v"}
    )
    await api.queue.settle_held(await api.claim(), Held("booking-1", "REF1", None, "res-1"))
    item = await api.admin.GetItem(pb.GetItemRequest(queue_item_id=item_id))
    record = await api.queue.item(item_id)
    assert (item.item_id, item.event_id, item.user_id) == (item_id, EVENT, "ann")
    assert (item.status, item.seats, item.booking_id) == ("awaiting_payment", 2, "booking-1")
    assert (item.booking_reference, item.reservation_id) == ("REF1", "res-1")
    assert item.deadline_ms == record.deadline_ms > item.joined_at_ms > 0
    assert item.pay_by_ms == record.pay_by_ms
    assert item.request == pb.Request(
        seat_numbers=["A1", "A2"], total_amount=10, currency="EUR", metadata={"k": "v"}
    )
    await api.queue.cancel(item_id, "ann", "", "user:ann")
    item = await api.admin.GetItem(pb.GetItemRequest(queue_item_id=item_id))
    assert (item.status, item.task) == ("releasing", "release")


async def test_an_operator_cancels_anyones_item_with_a_reason(api: Api):
    item_id = await api.join("ann")
    for _ in range(2):
        answer = await api.admin.CancelItem(
            pb.CancelItemRequest(queue_item_id=item_id, reason="a bot", operator="kim")
        )
        assert answer.status == "cancelled"
    assert (await api.queue.item(item_id)).message == "a bot"
    finished = await api.bring_to(Status.COMPLETED)
    error = await failure(api.admin.CancelItem(pb.CancelItemRequest(queue_item_id=finished)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_dead_letters_are_listed_and_put_back_or_given_up(api: Api):
    first, second = await api.join("ann"), await api.join("bob")
    for _ in range(2):
        await api.queue.settle_retry(await api.claim(), 0, "down")
    request = pb.ListDeadLettersRequest(event_id=EVENT)
    listed = [i.item_id for i in (await api.admin.ListDeadLetters(request)).items]
    assert sorted(listed) == sorted([first, second])  # they may have died in the same millisecond
    request = pb.ListDeadLettersRequest(event_id=EVENT, offset=1, limit=1)
    assert [i.item_id for i in (await api.admin.ListDeadLetters(request)).items] == listed[1:]
    answer = await api.admin.RequeueDeadLetter(
        pb.RequeueDeadLetterRequest(queue_item_id=first, operator="kim")
    )
    assert answer.status == (await api.queue.item(first)).status
    await api.admin.DiscardDeadLetter(pb.DiscardDeadLetterRequest(queue_item_id=second))
    assert (await api.queue.status(EVENT)).dead_letters == 0
    error = await failure(
        api.admin.RequeueDeadLetter(pb.RequeueDeadLetterRequest(queue_item_id=second))
    )
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_dead_letter_whose_user_joined_again_cannot_go_back(api: Api):
    item_id = await api.join("ann")
    await api.queue.settle_retry(await api.claim(), 0, "down")
    await api.join("ann")
    error = await failure(
        api.admin.RequeueDeadLetter(pb.RequeueDeadLetterRequest(queue_item_id=item_id))
    )
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "another place" in (error.details() or "")


@pytest.mark.parametrize("event_id", [EVENT, ""])
async def test_nobody_is_admitted_from_a_pause_until_a_resume(api: Api, event_id: str):
    item_id = await api.join("ann")
    request = pb.PauseAdmissionRequest(event_id=event_id, reason="flooded", operator="kim")
    await api.admin.PauseAdmission(request)
    await api.admin.PauseAdmission(request)
    status = await api.admin.GetEventStatus(pb.GetEventStatusRequest(event_id=EVENT))
    assert (status.paused, status.paused_because) == (True, "flooded")
    shown = await api.stub.GetQueueStatus(worker_pb.GetQueueStatusRequest(event_id=EVENT))
    assert (shown.paused, "flooded" in shown.message) == (True, False)
    question = await api.queue.ask_capacity(EVENT)
    await api.queue.set_capacity(EVENT, question, 9)
    assert (await api.queue.claim(EVENT, "w", 1, frozenset({Task.RESERVE}))).leases == []
    assert await api.join("bob")
    assert (await api.position(item_id)).position == 1
    resume = pb.ResumeAdmissionRequest(event_id=event_id, operator="kim")
    assert (await api.admin.ResumeAdmission(resume)).paused_because == "flooded"
    assert (await api.admin.ResumeAdmission(resume)).paused_because == ""
    assert len((await api.queue.claim(EVENT, "w", 1, frozenset({Task.RESERVE}))).leases) == 1
    assert [(line["who"], line["did"], line["why"]) for line in api.records] == [
        ("operator:kim", "pause", "flooded"),
        ("operator:kim", "pause", "flooded"),
        ("operator:kim", "resume", "flooded"),
    ]


@pytest.mark.parametrize(
    "method, request_type",
    [
        ("GetItem", pb.GetItemRequest),
        ("CancelItem", pb.CancelItemRequest),
        ("RequeueDeadLetter", pb.RequeueDeadLetterRequest),
        ("DiscardDeadLetter", pb.DiscardDeadLetterRequest),
    ],
)
async def test_an_unknown_item_is_not_found_and_none_is_a_mistake(api: Api, method, request_type):
    call = getattr(api.admin, method)
    error = await failure(call(request_type(queue_item_id=NOWHERE)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert field_at_fault(await failure(call(request_type()))) == "queue_item_id"


@pytest.mark.parametrize(
    "method, request_, at_fault",
    [
        ("GetEventStatus", pb.GetEventStatusRequest(), "event_id"),
        ("ListItems", pb.ListItemsRequest(event_id="a b"), "event_id"),
        ("ListItems", pb.ListItemsRequest(event_id="e", statuses=["odd"]), "statuses"),
        ("ListItems", pb.ListItemsRequest(event_id="e", statuses=["completed"]), "statuses"),
        ("ListItems", pb.ListItemsRequest(event_id="e", offset=-1), "offset"),
        ("ListItems", pb.ListItemsRequest(event_id="e", offset=2**63 - 1), "offset"),
        ("ListItems", pb.ListItemsRequest(event_id="e", limit=-1), "limit"),
        ("ListDeadLetters", pb.ListDeadLettersRequest(), "event_id"),
        ("ListDeadLetters", pb.ListDeadLettersRequest(event_id="e", limit=-(2**63)), "limit"),
        ("CancelItem", pb.CancelItemRequest(queue_item_id=NOWHERE, operator="\n"), "operator"),
        ("CancelItem", pb.CancelItemRequest(queue_item_id=NOWHERE, reason="x" * 501), "reason"),
        ("PauseAdmission", pb.PauseAdmissionRequest(event_id="a b", reason="x"), "event_id"),
        ("PauseAdmission", pb.PauseAdmissionRequest(), "reason"),
        ("ResumeAdmission", pb.ResumeAdmissionRequest(event_id="{"), "event_id"),
        (
            "RequeueDeadLetter",
            pb.RequeueDeadLetterRequest(queue_item_id=NOWHERE, operator="x" * 129),
            "operator",
        ),
    ],
)
async def test_a_wrong_field_is_named(api: Api, method, request_, at_fault):
    error = await failure(getattr(api.admin, method)(request_))
    assert field_at_fault(error) == at_fault


async def test_who_asks_for_everything_gets_500_at_once(api: Api):
    answer = await api.admin.ListItems(pb.ListItemsRequest(event_id=EVENT, limit=2**63 - 1))
    assert list(answer.items) == []
