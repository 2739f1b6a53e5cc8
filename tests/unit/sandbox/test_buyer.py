from __future__ import annotations

import asyncio
import random
import time

import grpc
import pytest

from booking_worker.sandbox.buyer import Behaviour, Buyer, BuyerResult, Habits
from booking_worker.sandbox.queue_client import QueueClient
from tests.unit.sandbox.small_line import Item, SmallLine, serve

QUICK = Habits(
    think_seconds=0.02,
    patience_seconds=0.05,
    shortest_poll_seconds=0.02,
    longest_poll_seconds=0.05,
)
FIRST_HALF, SECOND_HALF = 0.2, 0.8


async def lived(
    line: SmallLine,
    behaviour: Behaviour = Behaviour.PAY,
    luck: float = SECOND_HALF,
    number: int = 1,
    seats: int = 1,
) -> BuyerResult:
    """What became of one buyer in a line."""
    result = BuyerResult("ann", behaviour, seats)
    changes: list[tuple[str, str]] = []
    async with serve(line) as endpoint:
        client = QueueClient(endpoint, random.Random(1))
        buyer = Buyer(
            result,
            client,
            "show",
            QUICK,
            number=number,
            luck=luck,
            rng=random.Random(1),
            started=time.monotonic(),
            doors=asyncio.Semaphore(1),
            everybodys_pause=lambda: 0.0,
            on_status=lambda before, after: changes.append((before, after)),
        )
        await buyer.live()
        await client.close()
    befores = ["", *result.statuses][: len(changes)]
    assert changes == list(zip(befores, result.statuses, strict=True))
    return result


async def test_who_pays_gets_it() -> None:
    line = SmallLine()
    result = await lived(line, seats=2)
    assert result.item_id == "item-0"
    assert result.status == "completed"
    assert result.is_final
    assert result.statuses[-2:] == ["awaiting_payment", "completed"]
    assert result.booking_reference == "R-item-0"
    assert result.booking_id == "bk-item-0"
    assert (result.refused, result.two_places) == ("", False)
    assert result.joined_at is not None
    assert result.admitted_at is not None
    assert result.finished_at is not None
    assert result.asked_at <= result.joined_at <= result.admitted_at <= result.finished_at


async def test_who_does_not_pay_loses_it() -> None:
    result = await lived(SmallLine(hold_seconds=0.1), Behaviour.DONT_PAY)
    assert result.statuses[-2:] == ["awaiting_payment", "expired"]


async def test_who_pays_late_is_refused_and_lost_it() -> None:
    line = SmallLine(hold_seconds=0.1)
    result = await lived(line, Behaviour.PAY_LATE)
    assert result.status == "expired"
    assert result.refused == "FAILED_PRECONDITION: it is expired"
    assert result.unexpected == ""
    assert line.calls["ConfirmPayment"] == 1


async def test_who_gives_up_waiting() -> None:
    line = SmallLine(admits=False)
    result = await lived(line, Behaviour.CANCEL, FIRST_HALF)
    assert result.statuses == ["waiting", "cancelled"]
    assert result.admitted_at is None


async def test_who_gives_up_at_the_till() -> None:
    result = await lived(SmallLine(hold_seconds=60), Behaviour.CANCEL, SECOND_HALF)
    assert result.statuses[-2:] == ["awaiting_payment", "cancelled"]


async def test_who_gives_up_too_late() -> None:
    line = SmallLine(tickets=0)
    result = await lived(line, Behaviour.CANCEL, FIRST_HALF)
    assert result.status == "sold_out"
    assert result.refused == "FAILED_PRECONDITION: it is sold_out"


@pytest.mark.parametrize("luck", [FIRST_HALF, SECOND_HALF])
async def test_who_joins_twice_has_one_place(luck: float) -> None:
    line = SmallLine()
    result = await lived(line, Behaviour.JOIN_TWICE, luck)
    assert line.calls["EnqueueBooking"] == 2
    assert len(line.items) == 1
    assert (result.status, result.two_places) == ("completed", False)


@pytest.mark.parametrize("luck", [FIRST_HALF, SECOND_HALF])
async def test_two_places_are_noticed(luck: float) -> None:
    result = await lived(SmallLine(one_place_each=False), Behaviour.JOIN_TWICE, luck)
    assert result.two_places
    assert sorted(result.acknowledged) == ["item-0", "item-1"]


async def test_who_hears_no_to_the_second_join_remembers_the_first_place() -> None:
    line = SmallLine(
        one_place_each=False, failing={"EnqueueBooking": [None, grpc.StatusCode.RESOURCE_EXHAUSTED]}
    )
    result = await lived(line, Behaviour.JOIN_TWICE, SECOND_HALF)
    assert result.acknowledged == ["item-0"]
    assert result.unexpected == "RESOURCE_EXHAUSTED: told to fail"


async def test_a_second_place_is_right_when_the_first_was_final() -> None:
    line = SmallLine(tickets=0)
    result = await lived(line, Behaviour.JOIN_TWICE, SECOND_HALF)
    assert len(line.items) == 2
    assert result.item_id == "item-1"
    assert (result.status, result.two_places) == ("sold_out", False)


async def test_sold_out() -> None:
    result = await lived(SmallLine(tickets=0))
    assert result.status == "sold_out"
    assert result.admitted_at is None


async def test_every_other_buyer_sends_a_key() -> None:
    with_key, without = SmallLine(), SmallLine()
    await lived(with_key, number=1)
    await lived(without, number=2)
    assert (with_key.keys, without.keys) == (["first-ann"], [])


async def test_a_refused_join() -> None:
    line = SmallLine(failing={"EnqueueBooking": [grpc.StatusCode.RESOURCE_EXHAUSTED]})
    result = await lived(line)
    assert result.refused == result.unexpected == "RESOURCE_EXHAUSTED: told to fail"
    assert (result.item_id, result.status, result.joined_at) == ("", "", None)
    assert result.finished_at is None


async def test_an_item_that_is_lost_is_noticed() -> None:
    line = SmallLine(failing={"GetQueuePosition": [grpc.StatusCode.NOT_FOUND]})
    result = await lived(line)
    assert result.status == "not_found"
    assert result.unexpected == "NOT_FOUND: told to fail"
    assert not result.is_final
    assert result.finished_at is None


@pytest.mark.parametrize("method", ["EnqueueBooking", "GetQueuePosition", "ConfirmPayment"])
@pytest.mark.parametrize("lost", [False, True])
async def test_trouble_on_the_way_changes_nothing(method: str, lost: bool) -> None:
    line = SmallLine(
        hold_seconds=30,
        failing={method: [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED]},
        lose_answers=lost,
    )
    result = await lived(line)
    assert (result.status, result.refused) == ("completed", "")
    assert list(line.items.values()) == [
        Item("item-0", "ann", "completed", line.items["item-0"].pay_by)
    ]


async def test_a_payment_that_was_refused_is_tried_again_a_few_times() -> None:
    line = SmallLine(
        hold_seconds=30, failing={"ConfirmPayment": [grpc.StatusCode.FAILED_PRECONDITION] * 2}
    )
    result = await lived(line)
    assert result.status == "completed"
    hopeless = SmallLine(
        hold_seconds=0.5, failing={"ConfirmPayment": [grpc.StatusCode.FAILED_PRECONDITION] * 99}
    )
    result = await lived(hopeless)
    assert result.status == "expired"
    assert hopeless.calls["ConfirmPayment"] == 5


def _in_line(everybodys_pause: float, wait_seconds: int, position: int = 1) -> float:
    rng = random.Random(1)
    rng.random = lambda: 0.5  # type: ignore[method-assign] - no jitter
    buyer = Buyer(
        BuyerResult("ann", Behaviour.PAY, 1),
        None,  # type: ignore[arg-type]
        "show",
        Habits(),
        number=1,
        luck=0.5,
        rng=rng,
        started=0.0,
        doors=asyncio.Semaphore(1),
        everybodys_pause=lambda: everybodys_pause,
        on_status=lambda before, after: None,
    )
    buyer._stands(position, wait_seconds)
    return buyer._pause_in_line()


@pytest.mark.parametrize(
    "everybodys, wait, position, pause",
    [
        (0.0, 0, 1, 0.25),
        (0.0, 8, 500, 2.0),
        (0.0, 600, 9000, 5.0),
        (0.0, -1, 200, 0.25),  # a second at 200 a second
        (0.0, -1, 2000, 2.5),
        (12.0, 0, 1, 0.25),
        (12.0, 3, 100, 1.2),
        (12.0, 30, 5000, 12.0),
        (12.0, 600, 20000, 12.0),
    ],
)
def test_polls_are_frequent_near_the_head_only(everybodys, wait, position, pause) -> None:
    assert _in_line(everybodys, wait, position) == pytest.approx(pause)
