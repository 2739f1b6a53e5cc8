from __future__ import annotations

import inspect

from booking_worker.queue import booking_queue
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.desk import Desk
from booking_worker.queue.layout import Layouts
from booking_worker.queue.line import Line
from booking_worker.queue.work import Work
from tests.support.stage import EVENT, LIMITS, Stage


def test_it_is_the_line_the_work_the_desk_and_the_layout():
    kinds = (Line, Work, Desk, Layouts)
    own = {name for kind in kinds for name in vars(kind) if not name.startswith("_")}
    public = {name for name in dir(BookingQueue) if not name.startswith("_")}
    assert public == own


def test_every_method_is_asynchronous_and_says_what_the_caller_gets():
    """Those of the shortest way tell a taker instead."""
    for name in dir(BookingQueue):
        method = getattr(BookingQueue, name)
        if not name.startswith("_"):
            tells_a_taker = "taker" in inspect.signature(method).parameters
            assert inspect.iscoroutinefunction(method) or tells_a_taker, name
            assert inspect.getdoc(method), name


def test_what_its_methods_take_and_give_comes_with_it():
    assert set(booking_queue.__all__) == {
        "BookingQueue", "CapacityQuestion", "Claimed", "Expired", "Look", "Mended", "QueueLimits",
        "TakenOver",
    }  # fmt: skip


async def test_without_a_clock_of_a_test_it_goes_by_the_engines_own(stage: Stage):
    queue = BookingQueue(stage.client, LIMITS)
    seconds, microseconds = await stage.client.time()
    now_ms = (await queue.status(EVENT)).now_ms
    assert 0 <= now_ms - (seconds * 1000 + microseconds // 1000) < 5_000


async def test_the_clock_of_a_test_is_the_engines_own_until_it_is_set(stage: Stage):
    await stage.clock.stop()
    seconds, _ = await stage.client.time()
    assert 0 <= (await stage.queue.status(EVENT)).now_ms - seconds * 1000 < 5_000
