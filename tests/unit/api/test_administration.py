from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from booking_worker.api.administration import MOST_ITEMS_PER_PAGE, Administration
from booking_worker.domain.errors import InvalidRequest, ItemNotFound, WrongStatus
from booking_worker.domain.model import Join, Status, Task
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.api import LIMITS, on_one_engine

pytestmark = on_one_engine


@pytest.fixture
async def queue(redis_client: Redis) -> BookingQueue:
    """700 people in line, of whom 650 are being served."""
    queue = BookingQueue(redis_client, LIMITS)
    queue._given["max_size"] = 1000
    joins = [Join(f"{n:0>12}.e", f"u{n}", 1, b'[[],0.0,"",{}]') for n in range(700)]
    await queue.join("e", joins)
    await queue.set_capacity("e", await queue.ask_capacity("e"), None)
    for _ in range(13):
        await queue.claim("e", "w", 50, frozenset({Task.RESERVE}))
    return queue


async def users(queue: BookingQueue, *args) -> list[str]:
    administration = Administration(queue, [].append)
    return [item.user_id for item in await administration.items("e", *args)]


async def test_a_page_spans_the_indexes(queue: BookingQueue):
    assert await users(queue, [], 48, 4) == ["u698", "u699", "u0", "u1"]


async def test_pages_add_up_to_the_whole(queue: BookingQueue):
    seen: list[str] = []
    while page := await users(queue, [], len(seen), 300):
        seen += page
    assert seen == [f"u{n}" for n in (*range(650, 700), *range(650))]


async def test_a_page_is_never_more_than_500(queue: BookingQueue):
    assert len(await users(queue, [], 0, 0)) == MOST_ITEMS_PER_PAGE
    assert len(await users(queue, [], 0, 10_000)) == MOST_ITEMS_PER_PAGE


async def test_a_status_is_sought_beyond_the_first_page(queue: BookingQueue):
    (lease,) = (await queue.claim("e", "w", 1, frozenset({Task.RESERVE}))).leases
    await queue.settle_retry(lease, 0, "down")
    assert await users(queue, ["failed"], 0, 10) == ["u650"]
    assert await users(queue, ["processing"], 645, 10) == [f"u{n}" for n in range(645, 650)]
    assert await users(queue, ["confirming"], 0, 10) == []


async def test_an_operator_is_named_in_the_audit_or_said_to_be_nobody(queue: BookingQueue):
    administration = Administration(queue, [].append)
    assert await administration.cancel(f"{699:0>12}.e", "", "kim") is Status.CANCELLED
    assert await administration.cancel(f"{698:0>12}.e", "", "") is Status.CANCELLED
    entries = await queue._client.xrevrange("booking-changes:{e}", count=2)
    assert [fields[b"by"] for _, fields in entries] == [b"operator:unnamed", b"operator:kim"]


async def test_pauses_and_resumes_are_told_to_the_audit_log(queue: BookingQueue):
    told: list[Mapping[str, Any]] = []
    administration = Administration(queue, told.append)
    await administration.pause("e", "flooded", "kim")
    assert (await administration.event_status("e")).paused_because == "flooded"
    await administration.pause("", "prices are wrong", "kim")
    assert (await administration.event_status("other")).paused_because == "prices are wrong"
    assert await administration.resume("", "") == "prices are wrong"
    assert await administration.resume("e", "eve") == "flooded"
    assert await administration.resume("e", "eve") == ""
    assert told == [
        {"who": "operator:kim", "did": "pause", "event_id": "e", "why": "flooded"},
        {"who": "operator:kim", "did": "pause", "event_id": "", "why": "prices are wrong"},
        {"who": "operator:unnamed", "did": "resume", "event_id": "", "why": "prices are wrong"},
        {"who": "operator:eve", "did": "resume", "event_id": "e", "why": "flooded"},
    ]


async def test_a_discard_is_told_to_the_audit_log(queue: BookingQueue):
    """It changes no status, so the feed does not tell of it."""
    told: list[Mapping[str, Any]] = []
    administration = Administration(queue, told.append)
    (lease,) = (await queue.claim("e", "w", 1, frozenset({Task.RESERVE}))).leases
    with pytest.raises(WrongStatus):
        await administration.discard(lease.item_id, "kim")
    await queue.settle_retry(lease, 0, "it is down")
    await administration.discard(lease.item_id, "kim")
    assert told == [
        {
            "who": "operator:kim",
            "did": "discard",
            "event_id": "e",
            "item_id": lease.item_id,
            "why": "it is down",
        }
    ]


@pytest.mark.parametrize(
    "event_id, reason, operator, field",
    [
        ("a b", "flooded", "kim", "event_id"),
        ("e", " ", "kim", "reason"),
        ("e", "x" * 501, "kim", "reason"),
        ("e", "flooded", "\n", "operator"),
    ],
)
async def test_a_pause_that_is_wrong_pauses_nothing(
    queue: BookingQueue, event_id: str, reason: str, operator: str, field: str
):
    with pytest.raises(InvalidRequest) as error:
        await Administration(queue, [].append).pause(event_id, reason, operator)
    assert error.value.field == field
    assert not (await queue.status("e")).paused


async def test_what_is_wrong_is_named(queue: BookingQueue):
    administration = Administration(queue, [].append)
    with pytest.raises(InvalidRequest, match="must be of awaiting_payment, confirming, failed"):
        await administration.items("e", ["sold_out"], 0, 0)
    with pytest.raises(ItemNotFound):
        await administration.item("AAAAAAAAAAAA.e")
    assert await administration.events() == ["e"]
    assert await administration.dead_letters("e", 0, 0) == []
