from __future__ import annotations

import asyncio
from dataclasses import asdict

import pytest
from redis.exceptions import ResponseError

from booking_worker.domain.errors import (
    EngineUnavailable,
    Fenced,
    ItemNotFound,
    NotYourItem,
    UserHasPlace,
    WrongStatus,
)
from booking_worker.queue import scripts
from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.transitions import _TOLD, QueueLimits, _our_error
from tests.support.clock import MOVED_BY_TESTS
from tests.support.stage import EVENT, LIMITS, Stage, a_join

GIVEN = {"item_id": "I", "token": 3}


@pytest.mark.parametrize(
    "said, kind",
    [
        ("FENCED", Fenced),
        ("NOT_FOUND", ItemNotFound),
        ("NOT_YOURS", NotYourItem),
        ("USER_HAS_PLACE", UserHasPlace),
        ("ERR FENCED", Fenced),
    ],
)
def test_a_name_becomes_an_error_with_its_facts(said: str, kind: type[Exception]):
    error = _our_error(ResponseError(said), GIVEN)
    assert type(error) is kind
    assert error.item_id == "I"  # type: ignore[attr-defined]


def test_a_fenced_answer_says_its_token():
    error = _our_error(ResponseError("FENCED"), GIVEN)
    assert isinstance(error, Fenced)
    assert error.token == 3


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"reason": "no"}, "cancel"),
        ({"payment_reference": "P"}, "pay"),
        ({}, "do this"),
    ],
)
def test_a_wrong_status_says_what_was_wanted(given: dict[str, str], wanted: str):
    error = _our_error(ResponseError("WRONG_STATUS sold_out"), GIVEN | given)
    assert isinstance(error, WrongStatus)
    assert (error.status, error.wanted) == ("sold_out", wanted)


@pytest.mark.parametrize("said", ["user_script:1: attempt to index a nil value", ""])
def test_a_defect_is_not_dressed_up(said: str):
    error = ResponseError(said)
    assert _our_error(error, GIVEN) is error


async def test_the_error_of_a_script_keeps_its_cause(queue: BookingQueue):
    with pytest.raises(ItemNotFound) as caught:
        await queue.item("AAAAAAAAAAAA.concert")
    assert isinstance(caught.value.__cause__, ResponseError)


async def test_a_defect_of_a_script_is_raised_as_it_is(stage: Stage):
    broken = {"status": "-- Break.\n--\n-- RETURNS nothing\nreturn redis.call('NOSUCH')\n"}
    queue = BookingQueue(stage.client, LIMITS, broken)
    with pytest.raises(ResponseError):
        await queue.status(EVENT)


def test_the_limits_go_by_the_names_of_the_scripts():
    assert set(asdict(LIMITS)) >= {"max_size", "lease_ms", "result_ttl_ms", "max_crashes"}
    assert QueueLimits(1, 1, 1, 1, 1, 1, 1, 1).max_crashes == 3


async def test_what_is_told_waits_for_replicas_and_what_is_done_again_does_not(stage: Stage):
    safe = BookingQueue(stage.client, LIMITS, MOVED_BY_TESTS, acknowledge=Acknowledge(replicas=1))
    item_id = await stage.join_one("ann")
    asked = [
        safe.join(EVENT, [a_join("bob")]),
        safe.cancel(item_id, "ann", "", "user:ann"),
        safe.pause(EVENT, "flooded", "operator:kim"),
        safe.resume(EVENT),
    ]
    done = safe.status(EVENT), stage.capacity(5), safe.claim(EVENT, "w", 1, frozenset())
    for outcome in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(outcome, EngineUnavailable)
    await asyncio.gather(*done)
    # They happened all the same.
    (again,) = await stage.join(a_join("ann"))
    assert not again.already_queued


def test_who_waits_is_a_transition():
    assert set(scripts.names()) > _TOLD
