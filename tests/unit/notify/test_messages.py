from __future__ import annotations

import pytest

from booking_worker.domain.model import Change
from booking_worker.notify.messages import (
    NOBODY_LEFT,
    Message,
    Result,
    ToEveryone,
    ToUser,
    message_of,
    still_true,
)
from booking_worker.queue import scripts


def change(
    after: str,
    *,
    before: str = "x",
    item_id: str = "i.e",
    why: str = "because",
    booking_id: str = "",
    pay_by_ms: int = 61_000,
) -> Change:
    return Change(
        "1-0-0",
        "e",
        1_000,
        "system",
        item_id,
        "ann",
        before,
        after,
        why,
        2,
        7,
        booking_id,
        "R",
        pay_by_ms,
    )


def test_whose_turn_it_is_hears_until_when_to_pay():
    message = message_of(change("awaiting_payment", booking_id="b"))
    assert isinstance(message, ToUser)
    assert message.user_id == "ann"
    assert message.type == "booking:awaiting_payment"
    assert message.payload["pay_by_unix_ms"] == 61_000
    assert message.payload["remaining_ms"] == 60_000
    assert message.payload["booking_id"] == "b"
    assert message.payload["queue_item_id"] == "i.e"


def test_what_remains_to_pay_in_grows_less_while_the_message_waits():
    message = message_of(change("awaiting_payment"))
    assert isinstance(message, ToUser)
    later = still_true(message, 59_999)
    assert later == message._replace(payload={**message.payload, "remaining_ms": 1})
    assert message.payload["remaining_ms"] == 60_000
    assert still_true(message, 60_000) is None


@pytest.mark.parametrize(
    "message",
    [
        message_of(change("expired")),
        message_of(change("sold_out", item_id="")),
        ToUser("ann", "booking:processing", {}),
    ],
)
def test_what_has_no_end_is_true_for_ever(message: Message):
    assert still_true(message, 3_600_000) == message


@pytest.mark.parametrize("remaining_ms", [1, 0, -60_000])
def test_nobody_is_asked_to_pay_when_no_time_to_pay_is_left(remaining_ms: int):
    assert message_of(change("awaiting_payment", pay_by_ms=1_000 + remaining_ms)) is None


@pytest.mark.parametrize(
    "after, success",
    [
        ("completed", True),
        ("expired", False),
        ("cancelled", False),
        ("rejected", False),
        ("failed", False),
        ("sold_out", False),
    ],
)
def test_every_end_is_told_with_its_reason(after: str, success: bool):
    message = message_of(change(after, booking_id="b"))
    assert message == Result("ann", "e", "b", success, "because", "R")


def test_an_end_without_a_booking_is_told_under_the_items_id():
    message = message_of(change("expired"))
    assert isinstance(message, Result)
    assert message.booking_id == "i.e"


def test_an_event_that_is_sold_out_is_one_broadcast():
    message = message_of(change("sold_out", item_id="", why=NOBODY_LEFT))
    assert message == ToEveryone("e", "booking:sold_out", {"event_id": "e", "message": NOBODY_LEFT})
    assert message_of(change("sold_out", why=NOBODY_LEFT)) is None


@pytest.mark.parametrize("after", ["waiting", "processing", "confirming", "releasing"])
def test_what_nobody_need_be_told_is_no_message(after: str):
    assert message_of(change(after)) is None


def test_a_dead_letter_that_is_let_go_is_not_told_as_failed_again():
    assert message_of(change("failed", before="processing")) is not None
    assert message_of(change("failed", before="failed")) is None


def test_the_engine_says_sold_out_in_the_same_words():
    assert f"'{NOBODY_LEFT}'" in scripts.load("sell_out").text
