"""The audit that ends every test here can fail: each kind of damage is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from booking_worker.domain.model import Status
from tests.support import queue_audit
from tests.support.stage import EVENT, Stage

Damage = Callable[[Stage, str], Awaitable[object]]


def hincrby(field: str) -> Damage:
    return lambda stage, _: stage.client.hincrby(stage.key("state"), field, 1)


def zadd(index: str, score: int = 1) -> Damage:
    return lambda stage, item_id: stage.client.zadd(stage.key(index), {item_id: score})


def zrem(index: str) -> Damage:
    return lambda stage, item_id: stage.client.zrem(stage.key(index), item_id)


DAMAGES: dict[str, tuple[Status, Damage]] = {
    "capacity": (Status.WAITING, hincrby("capacity")),
    "total": (Status.WAITING, hincrby("total_seats")),
    "processing": (Status.PROCESSING, hincrby("processing")),
    "held": (Status.AWAITING_PAYMENT, hincrby("held")),
    "releasing": (Status.RELEASING, hincrby("releasing_seats")),
    "seq": (Status.WAITING, hincrby("seq")),
    "completed": (Status.COMPLETED, hincrby("completed")),
    "confirmed": (Status.COMPLETED, hincrby("confirmed_seats")),
    "lost": (
        Status.WAITING,
        lambda stage, item_id: stage.client.hdel(stage.key("items"), item_id),
    ),
    "line": (Status.WAITING, zrem("positions")),
    "line number": (Status.WAITING, zadd("positions", 7)),
    "arrivals": (Status.WAITING, lambda stage, _: stage.client.delete(stage.key("queue"))),
    "front": (Status.PROCESSING, hincrby("front")),
    "gaps": (Status.PROCESSING, zadd("gaps", 1)),
    "gaps without a front": (
        Status.CANCELLED,
        lambda stage, _: (
            stage.client.pipeline()
            .hdel(stage.key("state"), "front")
            .zadd(stage.key("gaps"), {"1": 1})
            .execute()
        ),
    ),
    "deadline": (Status.WAITING, zrem("timeouts")),
    "lease": (Status.PROCESSING, zrem("timeouts")),
    "twice": (Status.PROCESSING, zadd("tasks", 2**51 + 1)),
    "rank": (Status.PROCESSING, zadd("tasks", 5)),
    "stray deadline": (Status.FAILED, zadd("timeouts")),
    "admitted": (Status.PROCESSING, zrem("admitted")),
    "dead": (Status.FAILED, zrem("dead")),
    "user": (Status.WAITING, lambda stage, _: stage.client.hdel(stage.key("users"), "ann")),
    "user twice": (
        Status.WAITING,
        lambda stage, item_id: stage.client.hset(stage.key("users"), "ann", f"{item_id} {item_id}"),
    ),
    "user of the dead": (
        Status.FAILED,
        lambda stage, item_id: stage.client.hset(stage.key("users"), "ann", item_id),
    ),
    "expiry": (
        Status.COMPLETED,
        lambda stage, item_id: stage.client.persist(stage.key("results") + item_id),
    ),
    "key": (
        Status.WAITING,
        lambda stage, item_id: stage.client.set(stage.key("requests") + "ann\nk", item_id, ex=100),
    ),
    "untold": (
        Status.CANCELLED,
        lambda stage, _: stage.client.xtrim(stage.key("changes"), maxlen=1, approximate=False),
    ),
    "unknown key": (
        Status.WAITING,
        lambda stage, _: stage.client.set("booking-surprise:{concert}", 1),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found(stage: Stage, damage: str):
    status, break_it = DAMAGES[damage]
    item_id = await stage.in_status(status)
    await stage.audit()
    await break_it(stage, item_id)
    with pytest.raises(AssertionError):
        await stage.audit()
    await stage.client.flushall()


async def test_a_healthy_event_has_no_problems(stage: Stage):
    await stage.in_status(Status.PROCESSING)
    assert await queue_audit.problems_of(stage.client, EVENT) == []
