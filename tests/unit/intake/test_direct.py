from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from booking_worker.domain.errors import QueueFull
from booking_worker.domain.model import Join, Joined
from booking_worker.intake.direct import DirectIntake
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.metrics import Metrics
from tests.support.api import LIMITS


def join_of(user_id: str) -> Join:
    return Join(f"{user_id:A>12}.e", user_id, 1, b'[[],0.0,"",{}]')


class CountingQueue(BookingQueue):
    """Counts how many joins came at a time."""

    joins: list[int]

    def ask_to_join(self, event_id, joins, taker, until):
        self.joins.append(len(joins))
        super().ask_to_join(event_id, joins, taker, until)


@pytest.fixture
def queue(redis_client: Redis) -> CountingQueue:
    queue = CountingQueue(redis_client, replace(LIMITS, max_size=1200))
    queue.joins = []
    return queue


async def test_joins_that_arrive_together_are_few_calls_in_their_order(queue: CountingQueue):
    intake = DirectIntake(queue, Metrics())
    await intake.start()
    answers = await asyncio.gather(*(intake.join("e", join_of(f"u{n}")) for n in range(100)))
    assert queue.joins == [64, 36]
    assert [answer.position for answer in answers if isinstance(answer, Joined)] == list(
        range(1, 101)
    )
    await intake.stop()
    await intake.stop()


async def test_a_thousand_and_more_are_calls_of_at_most_200(queue: CountingQueue):
    intake = DirectIntake(queue, Metrics())
    answers = await intake.join_many("e", [join_of(f"u{n}") for n in range(1201)])
    assert queue.joins == [200] * 6 + [1]
    assert isinstance(answers[1199], Joined)
    assert isinstance(answers[1200], QueueFull)


async def test_stopping_waits_for_those_who_joined(queue: CountingQueue):
    intake = DirectIntake(queue, Metrics())
    asked = asyncio.ensure_future(intake.join("e", join_of("ann")))
    await intake.stop()
    assert isinstance(asked.result(), Joined)


async def test_who_is_refused_hears_an_error_and_all_are_counted(queue: CountingQueue):
    metrics = Metrics()
    intake = DirectIntake(queue, metrics)
    await intake.join_many("e", [join_of(f"u{n}") for n in range(1200)])
    again = await intake.join("e", join_of("u7"))
    assert again.already_queued
    with pytest.raises(QueueFull):
        await intake.join("e", join_of("late"))
    counted = {
        outcome: metrics.registry.get_sample_value(
            "booking_worker_joins_total", {"outcome": outcome}
        )
        for outcome in ("joined", "again", "refused")
    }
    assert counted == {"joined": 1200, "again": 1, "refused": 1}
