from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from booking_worker.domain.errors import EngineUnavailable, Fenced
from booking_worker.domain.model import Held, Status, Task
from booking_worker.worker.assignment import Assignment, Outcome
from booking_worker.worker.runner import RunTask, TaskRunner
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, LIMITS, Stage
from tests.unit.worker.crew import Crew

pytestmark = on_one_engine


def runner(crew: Crew, run: RunTask) -> TaskRunner:
    return TaskRunner(crew.queue, dict.fromkeys(Task, run), crew.setbacks, crew.metrics)


@pytest.fixture
async def work(stage: Stage, scripted: Crew) -> Assignment:
    return scripted.assignment(await stage.processing())


def raising(error: BaseException) -> Callable[[Assignment], Awaitable[Outcome]]:
    async def run(_: Assignment) -> Outcome:
        raise error

    return run


async def test_what_a_task_came_to_is_counted(stage: Stage, scripted: Crew, work: Assignment):
    async def run(work: Assignment) -> Outcome:
        await work.settle(lambda: stage.queue.settle_held(work.lease, Held("B1", "", None)))
        return Outcome.HELD

    await runner(scripted, run).run(work)
    assert scripted.counted("items_processed_total", task="reserve", outcome="held") == 1
    assert scripted.counted("processing_duration_seconds_count", task="reserve") == 1


async def test_a_retry_is_counted_as_one(scripted: Crew, work: Assignment):
    async def run(work: Assignment) -> Outcome:
        return await scripted.setbacks.retry(work, "down")

    await runner(scripted, run).run(work)
    assert scripted.counted("retries_total", task="reserve") == 1


async def test_an_answer_under_an_ended_lease_is_fenced_and_counted(
    stage: Stage, scripted: Crew, work: Assignment
):
    async def run(work: Assignment) -> Outcome:
        await stage.clock.advance(LIMITS.lease_ms)
        await stage.queue.expire(EVENT)
        await stage.claim_one()
        await work.settle(lambda: stage.queue.settle_held(work.lease, Held("B1", "", None)))
        return Outcome.HELD

    await runner(scripted, run).run(work)
    assert scripted.counted("fenced_total") == 1
    assert scripted.counted("items_processed_total", task="reserve", outcome="fenced") == 1
    assert (await stage.item(work.lease.item_id)).status is Status.PROCESSING


async def test_an_answer_that_the_engine_had_taken_already_is_not_counted_as_fenced(
    scripted: Crew, work: Assignment
):
    async def run(work: Assignment) -> Outcome:
        work.unsure = True
        raise Fenced(work.lease.item_id, work.lease.token)

    await runner(scripted, run).run(work)
    assert scripted.counted("fenced_total") == 0


async def test_a_defect_of_ours_is_retried_until_it_is_a_dead_letter(stage: Stage, scripted: Crew):
    crashing = runner(scripted, raising(ValueError("a defect")))
    lease = await stage.processing()
    for _ in range(LIMITS.max_retries):
        await crashing.run(scripted.assignment(lease))
        await stage.clock.advance(60_000)
        await stage.queue.expire(EVENT)
        lease = await stage.claim_one()
    await crashing.run(scripted.assignment(lease))
    record = await stage.item(lease.item_id)
    assert (record.status, record.message) == (Status.FAILED, "an internal error")
    assert scripted.counted("errors_total", kind="task") == LIMITS.max_retries + 1


async def test_a_task_that_hangs_ends_with_its_lease_and_is_redelivered(
    stage: Stage, scripted: Crew
):
    async def hang(_: Assignment) -> Outcome:
        await asyncio.Event().wait()
        return Outcome.HELD

    lease = await stage.processing()
    await runner(scripted, hang).run(scripted.assignment(lease, seconds=0.02))
    assert scripted.counted("errors_total", kind="lease_ended") == 1
    await stage.clock.advance(LIMITS.lease_ms)
    await stage.queue.expire(EVENT)
    again = await stage.claim_one()
    assert (again.item_id, again.crashes, again.attempts) == (lease.item_id, 1, 0)


@pytest.mark.parametrize("asked", [False, True])
async def test_a_task_that_is_cancelled_is_handed_back(
    stage: Stage, scripted: Crew, work: Assignment, asked: bool
):
    begun = asyncio.Event()

    async def run(work: Assignment) -> Outcome:
        work.asked = asked
        begun.set()
        await asyncio.Event().wait()
        return Outcome.HELD

    running = asyncio.create_task(runner(scripted, run).run(work))
    await begun.wait()
    running.cancel()
    await running
    record = await stage.item(work.lease.item_id)
    assert record.status is (Status.PROCESSING if asked else Status.WAITING)
    assert (record.attempts, record.crashes) == (0, 0)
    assert (await stage.claim_one()).item_id == work.lease.item_id


async def test_handing_back_never_raises(
    stage: Stage, scripted: Crew, work: Assignment, monkeypatch: pytest.MonkeyPatch
):
    made = runner(scripted, raising(AssertionError()))
    await made.hand_back([work.lease])
    await made.hand_back([work.lease])
    assert scripted.counted("items_processed_total", task="reserve", outcome="fenced") == 1
    assert scripted.counted("fenced_total") == 1

    async def away(*_: object, **__: object) -> Status:
        raise EngineUnavailable("away")

    monkeypatch.setattr(scripted.queue, "hand_back", away)
    await made.hand_back([work.lease])
    assert scripted.counted("items_processed_total", task="reserve", outcome="let_go") == 1


@pytest.mark.parametrize("settling", [False, True])
async def test_handing_back_under_an_ended_lease_is_fenced_and_counted(
    stage: Stage, scripted: Crew, work: Assignment, settling: bool
):
    """But not when its own outcome was on its way, which may have ended the lease."""
    begun = asyncio.Event()

    async def run(work: Assignment) -> Outcome:
        work.asked, work.settling = True, settling
        begun.set()
        await asyncio.Event().wait()
        return Outcome.HELD

    running = asyncio.create_task(runner(scripted, run).run(work))
    await begun.wait()
    await stage.clock.advance(LIMITS.lease_ms)
    await stage.queue.expire(EVENT)
    again = await stage.claim_one()
    with capture_logs() as lines:
        running.cancel()
        await running
    assert scripted.counted("fenced_total") == (not settling)
    assert scripted.counted("items_processed_total", task="reserve", outcome="fenced") == 1
    told = [(line["log_level"], line["token"]) for line in lines if "fenced" in line["event"]]
    assert told == [("info" if settling else "warning", work.lease.token)]
    assert (await stage.item(work.lease.item_id)).token == again.token


@pytest.mark.parametrize(
    "error, outcome",
    [
        (Fenced("item", 1), "fenced"),
        (TimeoutError(), "let_go"),
        (asyncio.CancelledError(), "handed_back"),
        (ValueError("another defect"), "let_go"),
    ],
)
async def test_a_defect_that_cannot_even_be_settled_ends_too(
    scripted: Crew,
    work: Assignment,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    outcome: str,
):
    async def retry(*_: object) -> Outcome:
        raise error

    monkeypatch.setattr(scripted.setbacks, "retry", retry)
    await runner(scripted, raising(ValueError("a defect"))).run(work)
    assert scripted.counted("items_processed_total", task="reserve", outcome=outcome) == 1
