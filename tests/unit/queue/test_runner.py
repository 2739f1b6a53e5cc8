from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.queue.runner import ScriptRunner, in_time
from booking_worker.queue.scripts import Script
from tests.support.engines import EngineFactory
from tests.support.wait import wait_until


def script(text: str, name: str = "test") -> Script:
    import hashlib

    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, sha, (), (), each=False, errors=frozenset())


COUNT = script("return redis.call('INCR', KEYS[1])")
ECHO = script("return ARGV[1]")
FAIL = script("return { err = 'NOT_FOUND' }")
WITHIN_SECONDS = 2.0 + 0.4  # of a test machine that is busy with other things


class Watched(ScriptRunner):
    """Remembers which calls travelled together."""

    def __init__(self, client: Redis) -> None:
        super().__init__(client)
        self.trips: list[int] = []
        self.at_once = 0

    async def _travel(self, calls: Any) -> None:
        self.trips.append(len(calls))
        self.at_once = max(self.at_once, len(self._trips))
        await super()._travel(calls)


@pytest.fixture
def runner(redis_client: Redis) -> Watched:
    return Watched(redis_client)


async def test_an_answer(runner: Watched):
    assert await runner.run(ECHO, [], ["ü"]) == "ü".encode()
    assert runner.trips == [1]


async def test_calls_of_one_turn_travel_together(runner: Watched):
    answers = await asyncio.gather(*(runner.run(ECHO, [], [at]) for at in range(100)))
    assert answers == [str(at).encode() for at in range(100)]
    assert runner.trips == [100]


async def test_a_trip_has_no_more_than_so_many(runner: Watched):
    answers = await asyncio.gather(*(runner.run(ECHO, [], [at]) for at in range(1_100)))
    assert len(answers) == 1_100
    assert max(runner.trips) <= 512
    assert sum(runner.trips) == 1_100


async def test_while_some_are_on_their_way_the_rest_gathers(runner: Watched):
    calls = []
    for at in range(50):
        calls.append(runner.run(ECHO, [], [at]))
        await asyncio.sleep(0)
    assert await asyncio.gather(*calls) == [str(at).encode() for at in range(50)]
    assert runner.at_once <= 4
    assert len(runner.trips) < 50


async def test_an_error_of_one_script_is_its_callers_alone(runner: Watched):
    good, bad, fine = (
        runner.run(ECHO, [], ["a"]),
        runner.run(FAIL, [], []),
        runner.run(ECHO, [], ["b"]),
    )
    assert await good == b"a"
    with pytest.raises(ResponseError, match="NOT_FOUND"):
        await bad
    assert await fine == b"b"
    assert runner.trips == [3]


async def test_an_error_of_a_lone_script(runner: Watched):
    with pytest.raises(ResponseError, match="NOT_FOUND"):
        await runner.run(FAIL, [], [])


async def test_a_script_that_the_engine_does_not_know_in_the_middle_of_a_pipeline(
    runner: Watched, redis_client: Redis
):
    await redis_client.script_flush()
    await redis_client.script_load(ECHO.text)
    calls = [
        runner.run(COUNT, ["n"], []) if at % 3 else runner.run(ECHO, [], [at]) for at in range(9)
    ]
    answers = await asyncio.gather(*calls)
    assert [answers[at] for at in (0, 3, 6)] == [b"0", b"3", b"6"]
    assert sorted(answers[at] for at in (1, 2, 4, 5, 7, 8)) == [1, 2, 3, 4, 5, 6]
    assert await redis_client.get("n") == b"6"  # none ran twice
    await redis_client.evalsha(COUNT.sha, 1, "n")  # and it is known from now on


async def test_scripts_are_forgotten_in_the_middle_of_the_load(
    runner: Watched, redis_client: Redis
):
    """Fault 7: SCRIPT FLUSH again and again, while calls are on their way."""
    calls: list[asyncio.Future[Any]] = []
    for at in range(200):
        calls.append(runner.run(COUNT, ["n"], []))
        if at % 20 == 0:
            await redis_client.script_flush()
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 201))


async def test_a_script_that_stays_unknown_is_a_defect(runner: Watched, redis_client: Redis):
    broken = Script("broken", "return (", "0" * 40, (), (), each=False, errors=frozenset())
    with pytest.raises(ResponseError) as caught:
        await runner.run(broken, [], [])
    assert not isinstance(caught.value, NoScriptError)


async def test_who_gives_up_before_leaving_is_not_sent(runner: Watched, redis_client: Redis):
    gone, stays = runner.run(COUNT, ["n"], []), runner.run(COUNT, ["n"], [])
    gone.cancel()
    assert await stays == 1
    assert runner.trips == [1]
    assert await redis_client.get("n") == b"1"


async def test_when_all_give_up_before_leaving_nothing_is_sent(runner: Watched):
    runner.run(COUNT, ["n"], []).cancel()
    await asyncio.sleep(0)
    assert runner.trips == []
    assert await runner.run(ECHO, [], ["a"]) == b"a"


@pytest.mark.parametrize("back", [True, False])
async def test_who_gives_up_on_the_way_disturbs_nobody(
    runner: Watched, redis_client: Redis, monkeypatch: pytest.MonkeyPatch, back: bool
):
    given_up = asyncio.Event()
    send = runner._send

    async def slowly(calls: Any) -> Any:
        await given_up.wait()
        if not back:
            raise OSError("the connection broke")
        return await send(calls)

    monkeypatch.setattr(runner, "_send", slowly)
    gone, stays = runner.run(COUNT, ["n"], []), runner.run(COUNT, ["n"], [])
    await wait_until(lambda: runner.trips)
    gone.cancel()
    given_up.set()
    if back:
        assert await stays == 2
        assert await redis_client.get("n") == b"2"
    else:
        with pytest.raises(EngineUnavailable):
            await stays


async def test_what_nobody_expects_reaches_who_asked(
    runner: Watched, monkeypatch: pytest.MonkeyPatch
):
    async def broken(calls: Any) -> Any:
        raise ValueError("a defect")

    monkeypatch.setattr(runner, "_send", broken)
    for answer in (runner.run(ECHO, [], ["a"]), runner.run(ECHO, [], ["b"])):
        with pytest.raises(ValueError, match="a defect"):
            await answer


async def test_when_the_loop_is_closed_callers_are_cancelled(
    runner: Watched, monkeypatch: pytest.MonkeyPatch
):
    async def never(calls: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(runner, "_send", never)
    answer = runner.run(ECHO, [], ["a"])
    await wait_until(lambda: runner._trips)
    (trip,) = runner._trips
    await asyncio.sleep(0)
    trip.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer


async def test_no_engine():
    """The client's own patience, by default longer, is not waited for."""
    client = Redis(unix_socket_path="/nonexistent/engine.sock")
    runner = ScriptRunner(client)
    began = time.monotonic()
    answers = [*(runner.run(ECHO, [], ["a"]) for _ in range(3)), in_time(client.get("n"))]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineUnavailable] * 4
    assert time.monotonic() - began < WITHIN_SECONDS


@pytest.mark.parametrize(
    "setting, value, usual",
    [("min-replicas-to-write", "1", "0"), ("maxmemory", "1", "0")],
)
async def test_an_engine_that_takes_no_writes_is_not_available(
    runner: Watched, redis_client: Redis, setting: str, value: str, usual: str
):
    """No replica to copy to, no memory left, a disk that is full: nothing has run."""
    await redis_client.config_set(setting, value)
    try:
        with pytest.raises(EngineUnavailable):
            await runner.run(COUNT, ["n"], [])
        with pytest.raises(EngineUnavailable):
            await in_time(redis_client.set("n", 1))
    finally:
        await redis_client.config_set(setting, usual)
    assert await runner.run(COUNT, ["n"], []) == 1


@pytest.fixture
async def own_engine(
    engine_factory: EngineFactory, tmp_path: Path
) -> AsyncIterator[EmbeddedEngine]:
    engine = engine_factory(tmp_path, "everysec")
    await engine.start()
    yield engine
    if engine.pid:
        os.kill(engine.pid, signal.SIGCONT)
    await engine.stop()


async def test_an_engine_that_hangs_is_told_within_two_seconds_to_everybody(
    own_engine: EmbeddedEngine,
):
    async with own_engine.client() as client:
        runner = Watched(client)
        assert await runner.run(COUNT, ["n"], []) == 1
        assert own_engine.pid is not None
        os.kill(own_engine.pid, signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        waits: list[float] = []

        async def ask() -> None:
            began = loop.time()
            with pytest.raises(EngineUnavailable):
                await runner.run(ECHO, [], ["stale"])
            waits.append(loop.time() - began)

        # More than there are ways to the engine, and some who come while these all hang.
        async with asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(ask())
                await asyncio.sleep(0.1)
        assert len(waits) == 12
        assert max(waits) < WITHIN_SECONDS
        os.kill(own_engine.pid, signal.SIGCONT)
        # Nobody is given an answer that was meant for somebody before.
        answers = await asyncio.gather(*(runner.run(COUNT, ["n"], []) for _ in range(20)))
        assert answers == list(range(2, 22))


async def test_an_engine_that_was_killed_is_back_by_itself(own_engine: EmbeddedEngine):
    async with own_engine.client() as client:
        runner = Watched(client)
        assert await runner.run(COUNT, ["n"], []) == 1
        assert own_engine.pid is not None
        os.kill(own_engine.pid, signal.SIGKILL)

        async def answered() -> Any:
            began = time.monotonic()
            try:
                return await runner.run(ECHO, [], ["back"])
            except EngineUnavailable:
                assert time.monotonic() - began < WITHIN_SECONDS
                return None

        assert await wait_until(answered) == b"back"
