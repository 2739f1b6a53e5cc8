from __future__ import annotations

import pytest

from booking_worker.domain.errors import PeerBreakerOpen, PeerUnavailable
from booking_worker.domain.model import Status, Task
from booking_worker.peers.breaker import Breaker
from booking_worker.worker.assignment import Outcome
from booking_worker.worker.setbacks import Setbacks
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, LIMITS, Stage
from tests.unit.worker.crew import Crew

pytestmark = on_one_engine

DOWN = PeerUnavailable("booking service", "UNAVAILABLE: it is down")


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("booking", failure_threshold=1)


@pytest.fixture
def setbacks(stage: Stage) -> Setbacks:
    return Setbacks(stage.queue, 1.0, rand=lambda: 1.0)


@pytest.mark.parametrize("task", Task)
async def test_a_task_that_failed_comes_again_after_a_backoff(
    task: Task, stage: Stage, scripted: Crew, setbacks: Setbacks, breaker: Breaker
):
    lease = await stage.lease_of(task)
    assert await setbacks.again(scripted.assignment(lease), DOWN, breaker) is Outcome.RETRY
    record = await stage.item(lease.item_id)
    assert record.attempts == 1
    assert record.deadline_ms == stage.clock.now + 1_000


async def test_the_backoff_grows_with_every_attempt_up_to_a_minute(
    stage: Stage, scripted: Crew, setbacks: Setbacks, breaker: Breaker
):
    stage.limit(max_retries=10)
    setbacks._queue = stage.queue
    lease = await stage.processing()
    waits = []
    for _ in range(8):
        await setbacks.again(scripted.assignment(lease), DOWN, breaker)
        waits.append((await stage.item(lease.item_id)).deadline_ms - stage.clock.now)
        await stage.clock.advance(waits[-1])
        await stage.queue.expire(EVENT)
        lease = await stage.claim_one()
    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


async def test_after_the_last_retry_it_is_a_dead_letter(
    stage: Stage, scripted: Crew, setbacks: Setbacks, breaker: Breaker
):
    lease = await stage.processing()
    outcomes = []
    for _ in range(LIMITS.max_retries + 1):
        outcomes.append(await setbacks.again(scripted.assignment(lease), DOWN, breaker))
        await stage.clock.advance(60_000)
        await stage.queue.expire(EVENT)
        if outcomes[-1] is Outcome.RETRY:
            lease = await stage.claim_one()
    assert outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.FAILED]
    record = await stage.item(lease.item_id)
    assert record.status is Status.FAILED
    assert "it is down" in record.message


@pytest.mark.parametrize("task", Task)
async def test_while_the_breaker_is_open_no_attempt_is_used_up(
    task: Task, stage: Stage, scripted: Crew, setbacks: Setbacks, breaker: Breaker
):
    lease = await stage.lease_of(task)
    breaker.record_failure()
    work = scripted.assignment(lease)
    work.asked = True
    assert await setbacks.again(work, DOWN, breaker) is Outcome.HANDED_BACK
    again = await stage.claim_one(task)
    assert (again.item_id, again.attempts, again.crashes) == (lease.item_id, 0, 0)


async def test_a_peer_that_is_asked_only_now_and_then_is_waited_for(
    stage: Stage, scripted: Crew, setbacks: Setbacks
):
    breaker = Breaker("ticket", failure_threshold=1, clock=lambda: 0.0, rand=lambda: 0.0)
    breaker.record_failure()
    lease = await stage.processing()
    for _ in range(LIMITS.max_retries + 2):
        work = scripted.assignment(lease)
        assert await setbacks.later(work, DOWN, breaker) is Outcome.HANDED_BACK
        record = await stage.item(lease.item_id)
        assert (record.attempts, record.crashes) == (0, 0)
        assert record.deadline_ms == stage.clock.now + 2_000 + 1_000
        await stage.clock.advance(3_000)
        await stage.queue.expire(EVENT)
        lease = await stage.claim_one()
    # Whoever gets it next and asks nobody must not put it back in the line.
    assert await stage.queue.hand_back(lease, asked=False) is Status.PROCESSING


async def test_while_it_answers_an_attempt_is_used_up(
    stage: Stage, scripted: Crew, setbacks: Setbacks
):
    lease = await stage.processing()
    work = scripted.assignment(lease)
    assert await setbacks.later(work, DOWN, Breaker("ticket")) is Outcome.RETRY
    assert (await stage.item(lease.item_id)).attempts == 1


async def test_what_was_never_asked_goes_back_to_its_place(
    stage: Stage, scripted: Crew, setbacks: Setbacks, breaker: Breaker
):
    lease = await stage.processing()
    error = PeerBreakerOpen("booking service", "not asked")
    assert await setbacks.again(scripted.assignment(lease), error, breaker) is Outcome.HANDED_BACK
    record = await stage.item(lease.item_id)
    assert (record.status, record.position) == (Status.WAITING, 1)
