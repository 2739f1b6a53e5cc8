from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue import lane
from booking_worker.queue.lane import PATIENCE_SECONDS, Reading
from booking_worker.queue.runner import ScriptRunner
from tests.support.ground import COUNT, ECHO, FAIL
from tests.support.wait import wait_until

LARGE = b"x" * 4096


@pytest.fixture
def runner(redis_client: Redis) -> ScriptRunner:
    return ScriptRunner(redis_client)


class Kept:
    """A taker that is no future: what it was told, and what it does then."""

    def __init__(self, then: Any = None) -> None:
        self.told: list[Any] = []
        self._then = then

    def done(self) -> bool:
        return bool(self.told)

    def set_result(self, result: Any, /) -> None:
        self.told.append(result)
        if self._then:
            self._then()

    def set_exception(self, exception: Exception, /) -> None:
        self.set_result(exception)

    def cancel(self) -> bool:
        self.set_result("cancelled")
        return True


def until() -> float:
    return asyncio.get_running_loop().time() + PATIENCE_SECONDS


async def test_a_large_call_leaves_at_once_and_a_small_one_with_the_turn(runner: ScriptRunner):
    answers = []

    def both() -> None:
        answers.append(runner.run(ECHO, [], ["small"]))
        assert not runner._under_way
        answers.append(runner.run(ECHO, [], [LARGE]))
        # The small one came first, so it goes along.
        assert [len(trip.calls) for trip in runner._under_way] == [2]

    kept = Kept(both)
    runner.run_for(kept, until(), ECHO, [], ["a"])
    await wait_until(kept.done)
    assert await asyncio.gather(*answers) == [b"small", LARGE]


async def test_what_is_sent_first_runs_first(runner: ScriptRunner):
    counts = [Kept() for _ in range(40)]

    def send() -> None:
        for kept in counts:
            runner.run_for(kept, until(), COUNT, ["n"], [LARGE])

    runner.run_for(Kept(send), until(), ECHO, [], ["a"])
    await wait_until(lambda: all(kept.told for kept in counts))
    assert [kept.told for kept in counts] == [[at] for at in range(1, 41)]


async def test_who_asks_again_when_the_connection_breaks_is_answered(
    runner: ScriptRunner, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
):
    """On another connection: on this one nobody would read the answer."""
    again = Kept()

    def ask_again() -> None:
        runner.run_for(again, until(), ECHO, [], [LARGE])

    first = Kept(ask_again)
    answer = lane._answer

    async def breaks(connection: Any) -> Any:
        monkeypatch.setattr(lane, "_answer", answer)
        raise ConnectionError("cut")

    monkeypatch.setattr(lane, "_answer", breaks)
    runner.run_for(first, until(), ECHO, [], ["a"])
    await wait_until(again.done)
    assert isinstance(first.told[0], EngineUnavailable)
    assert again.told == [LARGE]


async def test_a_connection_that_was_closed_meanwhile_says_so(
    runner: ScriptRunner, redis_client: Redis
):
    told: list[Kept] = []

    def close() -> None:
        connection = runner._connection
        assert connection is not None
        connection._writer.close()
        connection._writer = None
        told.append(Kept())
        runner.run_for(told[0], until(), ECHO, [], [LARGE])

    runner.run_for(Kept(close), until(), ECHO, [], ["a"])
    await wait_until(lambda: told and told[0].done())
    assert isinstance(told[0].told[0], EngineUnavailable)
    assert await runner.run(ECHO, [], ["b"]) == b"b"


async def test_what_cannot_be_written_is_told_and_the_next_goes_on(runner: ScriptRunner):
    with pytest.raises((TypeError, RedisError)):
        await runner.run(ECHO, [], [object()])  # type: ignore[list-item]
    assert await runner.run(ECHO, [], ["b"]) == b"b"


async def test_a_taker_hears_what_the_answer_means(runner: ScriptRunner):
    kept, odd = Kept(), Kept()
    runner.run_for(Reading(kept, int), until(), ECHO, [], ["7"])
    runner.run_for(Reading(odd, int), until(), ECHO, [], ["seven"])
    await wait_until(lambda: kept.done() and odd.done())
    assert kept.told == [7]
    assert isinstance(odd.told[0], ValueError)


async def test_a_taker_hears_the_error_as_it_is(runner: ScriptRunner):
    kept = Kept()
    runner.run_for(Reading(kept, int), until(), FAIL, ["n"], [])
    await wait_until(kept.done)
    assert isinstance(kept.told[0], ResponseError)


async def test_when_the_loop_is_closed_takers_hear_of_it(
    runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch
):
    tasks = []

    async def never(connection: Any) -> Any:
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    monkeypatch.setattr(lane, "_answer", never)
    kept = Kept()
    runner.run_for(Reading(kept, int), until(), ECHO, [], ["7"])
    await wait_until(lambda: tasks)
    tasks[0].cancel()
    await wait_until(kept.done)
    assert kept.told == ["cancelled"]


async def test_who_has_an_answer_is_not_too_late():
    kept = Kept()
    kept.set_result(7)
    lane.too_late(kept)
    assert kept.told == [7]
