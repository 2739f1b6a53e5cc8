from __future__ import annotations

import getpass

import pytest
from redis.asyncio import Redis

from booking_worker.domain.model import Status
from booking_worker.queue import keys
from tests.support.api import EVENT, on_one_engine
from tests.unit.cli.conftest import Served

pytestmark = on_one_engine


async def test_the_books_of_one_event(served: Served):
    await served.api.join("ann", seat_count=2)
    await served.api.join("bob")
    books = (await served("queue", "status", EVENT, "--json")).json
    assert (books["event_id"], books["waiting"], books["joined"]) == (EVENT, 2, 2)
    assert books["capacity"] is None
    ran = await served("queue", "status", EVENT)
    assert ran.code == 0
    assert "waiting           2 (the first for " in ran.out
    assert "seats             not known yet, 0 processing, 0 held, 0 sold" in ran.out


async def test_an_event_that_nobody_joined_is_said_to_be_so(served: Served):
    ran = await served("queue", "status", "conert")
    assert (ran.code, ran.out) == (0, "Nobody has joined the line of conert yet.\n")
    assert (await served("queue", "status", "conert", "--json")).json["joined"] == 0


async def test_capacity_is_told_as_far_as_it_is_known(served: Served):
    await served.api.join("ann")
    question = await served.api.queue.ask_capacity(EVENT)
    await served.api.queue.set_capacity(EVENT, question, 7)
    assert (await served("queue", "status", EVENT, "--json")).json["capacity"] == 7
    assert "7 left" in (await served("queue", "status", EVENT)).out
    question = await served.api.queue.ask_capacity(EVENT)
    await served.api.queue.set_capacity(EVENT, question, None)
    assert "unlimited left" in (await served("queue", "status", EVENT)).out


async def test_every_event_has_a_line(served: Served):
    assert (await served("queue", "status")).out == "Nobody has joined a line yet.\n"
    await served.api.join("ann", "play")
    await served.api.join("bob", "concert")
    ran = await served("queue", "status")
    rows = [line.split() for line in ran.out.splitlines()]
    assert [row[:3] for row in rows if row[0] in {"play", "concert"}] == [
        ["concert", "open", "1"],
        ["play", "open", "1"],
    ]
    books = (await served("queue", "status", "--json")).json
    assert [one["event_id"] for one in books] == ["concert", "play"]


async def test_the_line_is_listed_in_its_order(served: Served):
    items = [await served.api.join(user) for user in ("ann", "bob", "cid")]
    listed = (await served("queue", "list", EVENT, "--json")).json
    assert [one["item_id"] for one in listed] == items
    assert [one["position"] for one in listed] == [1, 2, 3]
    page = (await served("queue", "list", EVENT, "--limit", "1", "--offset", "1", "--json")).json
    assert [one["item_id"] for one in page] == [items[1]]
    table = (await served("queue", "list", EVENT)).out
    assert [items.index(one) for line in table.splitlines() for one in items if one in line] == [
        0,
        1,
        2,
    ]


async def test_a_status_narrows_the_list(served: Served):
    item_id = await served.api.bring_to(Status.AWAITING_PAYMENT)
    event_id = "awaiting_payment-ann"
    held = await served("queue", "list", event_id, "--status", "awaiting_payment", "--json")
    assert [one["item_id"] for one in held.json] == [item_id]
    assert (await served("queue", "list", event_id, "--status", "waiting", "--json")).json == []
    assert (await served("queue", "list", event_id, "--status", "waiting")).out == "Nobody.\n"
    beyond = await served("queue", "list", event_id, "--offset", "5")
    assert beyond.out == "No more.\n"


async def test_an_unknown_status_is_refused_by_name(served: Served):
    ran = await served("queue", "list", EVENT, "--status", "asleep")
    assert ran.code == 1
    assert ran.err.startswith("Error: statuses: must be of ")


async def test_all_is_shown_of_an_item(served: Served):
    item_id = await served.api.join(
        "ann", seat_numbers=["A1", "A2"], total_amount=99.5, currency="EUR", metadata={"via": "app"}
    )
    facts = (await served("queue", "show", item_id, "--json")).json
    assert facts["request"] == {
        "seat_numbers": ["A1", "A2"],
        "total_amount": 99.5,
        "currency": "EUR",
        "metadata": {"via": "app"},
    }
    out = (await served("queue", "show", item_id)).out
    for text in ("A1, A2", "99.50 EUR", "metadata via", "ann", " UTC"):
        assert text in out


async def test_an_unknown_item_is_told_without_a_traceback(served: Served):
    ran = await served("queue", "show", "AAAAAAAAAAAA.concert")
    assert ran.code == 1
    assert ran.err == "Error: no queue item 'AAAAAAAAAAAA.concert'\n"
    assert ran.out == ""


async def test_anyones_item_can_be_cancelled(served: Served):
    item_id = await served.api.join("ann")
    ran = await served("queue", "cancel", item_id, "--reason", "by phone")
    assert (ran.code, ran.out) == (0, f"{item_id} is cancelled.\n")
    assert (await served.api.queue.item(item_id)).status is Status.CANCELLED
    again = await served("queue", "cancel", item_id, "--json")
    assert again.json == {"item_id": item_id, "status": "cancelled"}


async def test_what_is_held_is_cancelled_once_it_is_given_back(served: Served):
    item_id = await served.api.bring_to(Status.AWAITING_PAYMENT)
    ran = await served("queue", "cancel", item_id)
    assert "it is cancelled once its tickets have been given back" in ran.out


async def test_what_is_completed_cannot_be_cancelled(served: Served):
    item_id = await served.api.bring_to(Status.COMPLETED)
    ran = await served("queue", "cancel", item_id)
    assert ran.code == 1
    assert ran.err == "Error: cannot cancel while the item is completed\n"


@pytest.mark.parametrize("given, told", [(["--as", "eve"], "eve"), ([], getpass.getuser())])
async def test_the_audit_log_hears_who_cancelled(
    served: Served, redis_client: Redis, given: list[str], told: str
):
    item_id = await served.api.join("ann")
    await served("queue", "cancel", item_id, *given)
    entries = await redis_client.xrange(keys.of_event(EVENT)["changes"])
    said = b"".join(value for _, fields in entries for value in fields.values())
    assert f"operator:{told}".encode() in said


@pytest.mark.parametrize("event, said", [([EVENT], EVENT), ([], "any event")])
async def test_admission_is_paused_and_resumed(served: Served, event: list[str], said: str):
    await served.api.join("ann")
    ran = await served("queue", "pause", *event, "--reason", "the hall is flooded")
    assert (ran.code, ran.out) == (0, f"Nobody is admitted to {said} until it is resumed.\n")
    assert "paused because    the hall is flooded" in (await served("queue", "status", EVENT)).out
    assert " paused " in (await served("queue", "status")).out
    ran = await served("queue", "resume", *event)
    what = EVENT if event else "all events"
    assert ran.out == f"{what}: resumed; paused was: the hall is flooded\n"
    assert (await served("queue", "resume", *event)).out == f"{what}: not paused.\n"
    assert "paused" not in (await served("queue", "status", EVENT)).out


@pytest.mark.parametrize("event", [EVENT, ""])
async def test_a_pause_and_a_resume_are_told_to_scripts(served: Served, event: str):
    await served.api.join("ann")
    named = [event] if event else []
    ran = await served("queue", "pause", *named, "--reason", "flooded", "--json")
    assert ran.json == {"event_id": event, "status": "paused", "reason": "flooded"}
    assert (await served("queue", "status", EVENT, "--json")).json["paused"]
    ran = await served("queue", "resume", *named, "--json")
    assert ran.json == {"event_id": event, "status": "resumed", "reason": "flooded"}
    ran = await served("queue", "resume", *named, "--json")
    assert ran.json == {"event_id": event, "status": "not_paused", "reason": ""}


@pytest.mark.parametrize("given, told", [(["--as", "eve"], "eve"), ([], getpass.getuser())])
async def test_the_audit_log_hears_who_paused_and_why(served: Served, given: list[str], told: str):
    await served("queue", "pause", EVENT, "--reason", "flooded", *given)
    await served("queue", "resume", EVENT, *given)
    assert served.api.records == [
        {"who": f"operator:{told}", "did": did, "event_id": EVENT, "why": "flooded"}
        for did in ("pause", "resume")
    ]


async def test_an_event_that_is_named_and_empty_is_not_every_event(served: Served):
    for arguments in (["pause", "", "--reason", "flooded"], ["resume", ""]):
        ran = await served("queue", *arguments)
        assert ran.code == 2
        assert "is empty; leave it out to mean all events" in ran.err
    assert served.api.records == []


async def test_a_pause_needs_a_reason(served: Served):
    ran = await served("queue", "pause", EVENT)
    assert ran.code == 2
    assert "--reason" in ran.err
