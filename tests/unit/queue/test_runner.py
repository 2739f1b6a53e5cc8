from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.queue import lane
from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.routing import ClusterRunner
from booking_worker.queue.runner import ScriptRunner
from booking_worker.queue.scripts import Script
from tests.support.clients import cluster_client, follows
from tests.support.engines import EngineFactory
from tests.support.ground import COUNT, ECHO, FAIL, Ground
from tests.support.servers import HOST, Cluster, Server, standalone
from tests.support.wait import wait_until

WITHIN_SECONDS = 2.0 + 0.4  # of a test machine that is busy with other things


@pytest.fixture
async def ground(
    shared: Server | Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        if isinstance(shared, Server):
            client = await stack.enter_async_context(shared.client())
            made = Ground(ScriptRunner(client), [client])
        else:
            owner = await shared.owner("n")
            nodes = sorted(shared.nodes, key=lambda node: node is not owner)
            servers = [await stack.enter_async_context(node.client()) for node in nodes]
            cluster = await stack.enter_async_context(cluster_client(shared))
            made = Ground(ClusterRunner(cluster), servers)
        for server in made.servers:
            await server.flushall()
        made.watch(monkeypatch)
        yield made


async def test_an_answer(ground: Ground):
    assert await ground.run(ECHO, [], ["ü"]) == "ü".encode()
    assert ground.trips == [1]


async def test_a_plain_command_travels_with_the_scripts(ground: Ground):
    await ground.run(COUNT, ["n"], [])
    answers = ground.run(COUNT, ["n"], []), ground.runner.command("n", "GET", "n")
    assert await asyncio.gather(*answers) == [2, b"2"]
    assert ground.trips == [1, 2]


async def test_calls_of_one_turn_travel_together(ground: Ground):
    answers = await asyncio.gather(*(ground.run(ECHO, [], [at]) for at in range(100)))
    assert answers == [str(at).encode() for at in range(100)]
    assert ground.trips == [100]


@pytest.mark.parametrize("number, size, most", [(1_100, 1, 512), (12, 100_000, 3)])
async def test_a_trip_is_not_too_large(ground: Ground, number: int, size: int, most: int):
    answers = (ground.runner.run(ECHO, ["n"], [b"x" * size]) for _ in range(number))
    assert set(await asyncio.gather(*answers)) == {b"x" * size}
    assert max(ground.trips) == most


async def test_all_ways_are_used_by_those_who_do_not_fit_into_one_trip(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    await ground.run(ECHO, [], ["it is known where the key is"])
    both = ground.hold(monkeypatch)
    calls = [ground.run(ECHO, [], [at]) for at in range(1_100)]
    await wait_until(lambda: ground.trips == [1, 512, 512])
    both.set()
    assert len(await asyncio.gather(*calls)) == 1_100
    assert ground.trips == [1, 512, 512, 76]


async def test_while_some_are_on_their_way_the_rest_gathers(ground: Ground):
    calls = []
    for at in range(50):
        calls.append(ground.run(ECHO, [], [at]))
        await asyncio.sleep(0)
    assert await asyncio.gather(*calls) == [str(at).encode() for at in range(50)]
    assert ground.at_once <= 4
    assert len(ground.trips) < 50


async def test_an_error_of_one_script_is_its_callers_alone(ground: Ground):
    good, bad, fine = (
        ground.run(ECHO, [], ["a"]),
        ground.run(FAIL, [], []),
        ground.run(ECHO, [], ["b"]),
    )
    assert await good == b"a"
    with pytest.raises(ResponseError, match="NOT_FOUND"):
        await bad
    assert await fine == b"b"
    assert ground.trips == [3]


async def test_an_error_of_a_lone_script(ground: Ground):
    with pytest.raises(ResponseError, match="NOT_FOUND"):
        await ground.run(FAIL, [], [])


async def test_a_script_that_the_engine_does_not_know_in_the_middle_of_a_pipeline(ground: Ground):
    await ground.forget_scripts()
    await ground.ask("SCRIPT LOAD", ECHO.text)
    calls = [
        ground.run(COUNT, ["n"], []) if at % 3 else ground.run(ECHO, [], [at]) for at in range(9)
    ]
    answers = await asyncio.gather(*calls)
    assert [answers[at] for at in (0, 3, 6)] == [b"0", b"3", b"6"]
    assert sorted(answers[at] for at in (1, 2, 4, 5, 7, 8)) == [1, 2, 3, 4, 5, 6]
    assert await ground.ask("GET", "n") == b"6"  # none ran twice
    await ground.ask("EVALSHA", COUNT.sha, 1, "n")  # and it is known from now on


async def test_scripts_are_forgotten_in_the_middle_of_the_load(ground: Ground):
    """Fault 7: SCRIPT FLUSH again and again, while calls are on their way."""
    calls: list[asyncio.Future[Any]] = []
    for at in range(200):
        calls.append(ground.run(COUNT, ["n"], []))
        if at % 20 == 0:
            await ground.servers[0].script_flush()
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 201))


async def test_a_script_that_stays_unknown_is_a_defect(ground: Ground):
    broken = Script("broken", "return (", "0" * 40, (), (), (), each="", errors=frozenset())
    with pytest.raises(ResponseError) as caught:
        await ground.run(broken, [], [])
    assert not isinstance(caught.value, NoScriptError)


async def test_who_gives_up_before_leaving_is_not_sent(ground: Ground):
    await ground.run(ECHO, [], ["it is known where the key is"])
    gone, stays = ground.run(COUNT, ["n"], []), ground.run(COUNT, ["n"], [])
    gone.cancel()
    assert await stays == 1
    assert ground.trips == [1, 1]
    assert await ground.ask("GET", "n") == b"1"


async def test_when_all_give_up_before_leaving_nothing_is_sent(ground: Ground):
    ground.run(COUNT, ["n"], []).cancel()
    await asyncio.sleep(0)
    assert ground.trips == []
    assert await ground.run(ECHO, [], ["a"]) == b"a"


@pytest.mark.parametrize("back", [True, False])
async def test_who_gives_up_on_the_way_disturbs_nobody(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, back: bool
):
    given_up = asyncio.Event()
    answer = lane._answer

    async def slowly(connection: Any) -> Any:
        await given_up.wait()
        if not back:
            raise OSError("the connection broke")
        return await answer(connection)

    monkeypatch.setattr(lane, "_answer", slowly)
    gone, stays = ground.run(COUNT, ["n"], []), ground.run(COUNT, ["n"], [])
    await wait_until(lambda: ground.trips)
    gone.cancel()
    given_up.set()
    if back:
        assert await stays == 2
        assert await ground.ask("GET", "n") == b"2"
    else:
        with pytest.raises(EngineUnavailable):
            await stays


@pytest.mark.parametrize("patience, trips", [(0.0, [1, 1]), (0.05, [1, 2])])
async def test_whose_time_is_over_takes_no_answer_from_anybody_else(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, patience: float, trips: list[int]
):
    """Before it leaves, when it does not, or on the way."""
    await ground.run(ECHO, [], ["it is known where the key is"])
    told = ground.hold(monkeypatch)
    with monkeypatch.context() as hurried:
        hurried.setattr(lane, "PATIENCE_SECONDS", patience)
        late = ground.run(ECHO, [], ["late"])
    stays = ground.run(ECHO, [], ["a"])
    with pytest.raises(EngineUnavailable, match="in time"):
        await late
    told.set()
    assert await stays == b"a"
    assert ground.trips == trips


async def test_after_a_trip_that_was_cancelled_before_it_began_others_leave(ground: Ground):
    await ground.run(ECHO, [], ["it is known where the key is"])
    await wait_until(lambda: len(asyncio.all_tasks()) == 1)  # its connection is given back
    before = asyncio.all_tasks()
    answer = ground.run(COUNT, ["n"], [])
    (trip,) = asyncio.all_tasks() - before
    trip.cancel()
    assert await answer == 1


async def test_what_nobody_expects_reaches_who_asked(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    async def broken(connection: Any) -> Any:
        raise ValueError("a defect")

    monkeypatch.setattr(lane, "_answer", broken)
    for answer in (ground.run(ECHO, [], ["a"]), ground.run(ECHO, [], ["b"])):
        with pytest.raises(ValueError, match="a defect"):
            await answer


async def test_when_the_loop_is_closed_callers_are_cancelled(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    trips = []

    async def never(connection: Any) -> Any:
        trips.append(asyncio.current_task())
        await asyncio.Event().wait()

    monkeypatch.setattr(lane, "_answer", never)
    answer = ground.run(ECHO, [], ["a"])
    await wait_until(lambda: trips)
    trips[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer


async def test_no_engine():
    """The client's own patience, by default longer, is not waited for."""
    client = Redis(unix_socket_path="/nonexistent/engine.sock")
    runner = ScriptRunner(client)
    began = time.monotonic()
    answers = [*(runner.run(ECHO, [], ["a"]) for _ in range(3)), runner.command("n", "GET", "n")]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineUnavailable] * 4
    assert time.monotonic() - began < WITHIN_SECONDS


@pytest.mark.parametrize(
    "setting, value, usual",
    [("min-replicas-to-write", "1", "0"), ("maxmemory", "1", "0")],
)
async def test_an_engine_that_takes_no_writes_is_not_available(
    ground: Ground, setting: str, value: str, usual: str
):
    """No replica to copy to, no memory left, a disk that is full: nothing has run."""
    await ground.ask("CONFIG SET", setting, value)
    try:
        with pytest.raises(EngineUnavailable):
            await ground.run(COUNT, ["n"], [])
        with pytest.raises(EngineUnavailable):
            await ground.runner.command("n", "SET", "n", 1)
    finally:
        await ground.ask("CONFIG SET", setting, usual)
    assert await ground.run(COUNT, ["n"], []) == 1


@pytest.mark.parametrize(
    "said",
    [
        "Error running script (call to f_6b1bf): @user_script:3: @user_script: 3: -READONLY You can't",
        "Error running script (call to f_6b1bf): @user_script:3: @user_script: 3: -OOM command not",
        "NOREPLICAS Not enough good replicas to write.",
    ],
)
def test_what_redis_6_refuses(said: str):
    """It says so in the words of the script's error."""
    assert lane.refuses(ResponseError(said))
    assert not lane.refuses(ResponseError("NOT_FOUND"))


async def test_a_master_that_became_a_replica_is_looked_for_again():
    """Where its name leads to now, if all connections to it are given up."""
    async with standalone() as old, standalone() as new, old.client() as client:
        runner = ScriptRunner(client)
        assert await asyncio.gather(*(runner.run(COUNT, ["n"], []) for _ in range(3))) == [1, 2, 3]
        await old.ask("REPLICAOF", HOST, new.port)
        client.connection_pool.connection_kwargs["port"] = new.port
        connections = [*client.connection_pool._available_connections]
        assert connections
        with pytest.raises(EngineUnavailable, match="replica"):
            await runner.run(COUNT, ["n"], [])
        await wait_until(lambda: not any(one.is_connected for one in connections))


async def test_what_is_kept_nowhere_else_is_not_acknowledged(ground: Ground):
    for server in ground.servers:
        await server.script_load(FAIL.text)  # or its call would wait twice
    ground.runner._acknowledge = Acknowledge(replicas=1)
    with pytest.raises(EngineUnavailable, match="0 replicas have it"):
        await ground.run(COUNT, ["n"], [])
    assert await ground.ask("GET", "n") == b"1"  # it is there all the same
    with pytest.raises(ResponseError, match="NOT_FOUND"):
        await ground.run(FAIL, [], [])


async def test_what_its_own_file_has_is_acknowledged_where_that_was_asked_for():
    async with standalone(options={"appendfsync": "always"}) as server, server.client() as client:
        runner = ScriptRunner(client, Acknowledge(aof=True))
        assert await runner.run(COUNT, ["n"], []) == 1
        await server.ask("CONFIG", "SET", "appendonly", "no")
        with pytest.raises(EngineUnavailable, match="appendonly is disabled"):
            await runner.run(COUNT, ["n"], [])


async def test_one_wait_covers_a_trip():
    replica = {"replica-announce-ip": HOST}
    async with (
        standalone(options={"repl-diskless-sync-delay": "0"}) as master,
        standalone(options=replica) as follower,
        master.client() as client,
    ):
        await follower.ask("REPLICAOF", HOST, master.port)
        await wait_until(lambda: follows(follower))
        runner = ScriptRunner(client, Acknowledge(replicas=1))
        await asyncio.gather(*(runner.run(COUNT, ["n"], []) for _ in range(100)))
        assert await follower.ask("GET", "n") == b"100"
        stats = await client.info("commandstats")
        assert stats["cmdstat_wait"]["calls"] <= 2  # the second after the scripts were unknown


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
        runner = ScriptRunner(client)
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
        runner = ScriptRunner(client)
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
