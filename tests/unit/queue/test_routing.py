from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import NodesManager, RedisCluster
from redis.exceptions import ConnectionError as EngineConnectionError
from redis.exceptions import ResponseError

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue import lane
from booking_worker.queue.lane import Lane
from booking_worker.queue.routing import ClusterRunner, runner_for
from booking_worker.queue.runner import ScriptRunner
from tests.support.clients import cluster_client, follows
from tests.support.ground import COUNT, ECHO, FAIL, script
from tests.support.servers import HOST, NODE_TIMEOUT_MS, Cluster, Server, cluster, free_port
from tests.support.slots import SlotMove
from tests.support.wait import wait_until
from tests.unit.queue.test_runner import WITHIN_SECONDS

BOTH = script("return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])")
KEYS = [f"n{{{at}}}" for at in range(30)]


@pytest.fixture
async def made() -> AsyncIterator[Cluster]:
    async with cluster() as nodes:
        yield nodes


@pytest.fixture
async def client(made: Cluster) -> AsyncIterator[RedisCluster]:
    opened = cluster_client(made)
    yield opened
    await opened.aclose()


@pytest.fixture
def runner(client: RedisCluster) -> ClusterRunner:
    return ClusterRunner(client)


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    send = Lane._send

    def watched(self: Lane, connection: Any, calls: Any, **how: bool) -> None:
        if not how:
            counted.append(len(calls))
        send(self, connection, calls, **how)

    monkeypatch.setattr(Lane, "_send", watched)
    return counted


async def count_all(runner: ClusterRunner) -> list[int]:
    return await asyncio.gather(*(runner.run(COUNT, [key], []) for key in KEYS))


async def test_it_depends_on_the_client():
    one, many = Redis(), RedisCluster("127.0.0.1")
    assert isinstance(runner_for(one), ScriptRunner)
    assert isinstance(runner_for(many), ClusterRunner)


async def test_calls_of_one_turn_make_one_trip_per_node(runner: ClusterRunner, trips: list[int]):
    """Those too that come before anything is known of the Cluster."""
    assert await count_all(runner) == [1] * len(KEYS)
    assert (len(trips), sum(trips)) == (3, len(KEYS))
    assert await count_all(runner) == [2] * len(KEYS)
    assert (len(trips), sum(trips)) == (6, 2 * len(KEYS))


async def test_a_script_without_keys_runs_somewhere(runner: ClusterRunner):
    assert await runner.run(ECHO, [], ["a"]) == b"a"


async def test_a_slot_that_has_moved_is_followed_once(
    made: Cluster, runner: ClusterRunner, trips: list[int]
):
    assert await runner.run(COUNT, ["n"], []) == 1
    await (await SlotMove.of(made, "n")).whole()
    calls = [runner.run(COUNT, ["n"], []) for _ in range(5)]
    assert sorted(await asyncio.gather(*calls)) == [2, 3, 4, 5, 6]
    assert trips == [1, 5, 5]
    assert await runner.run(COUNT, ["n"], []) == 7
    assert trips == [1, 5, 5, 1]


async def test_who_gives_up_meanwhile_is_not_sent_on(
    made: Cluster, runner: ClusterRunner, monkeypatch: pytest.MonkeyPatch
):
    assert await runner.run(COUNT, ["n"], []) == 1
    await (await SlotMove.of(made, "n")).whole()
    calls = [runner.run(COUNT, ["n"], []) for _ in range(3)]
    move_slot = NodesManager.move_slot

    async def slowly(nodes: NodesManager, error: Any) -> None:
        calls[0].cancel()
        await move_slot(nodes, error)

    monkeypatch.setattr(NodesManager, "move_slot", slowly)
    assert sorted(await asyncio.gather(*calls[1:])) == [2, 3]


async def test_a_slot_that_a_look_lost_meanwhile_is_waited_for(
    made: Cluster, runner: ClusterRunner, monkeypatch: pytest.MonkeyPatch
):
    """The layout is read anew while the call is on its way back from who had the slot."""
    assert await runner.run(COUNT, ["n"], []) == 1
    move_slot = NodesManager.move_slot

    async def looked(nodes: NodesManager, error: Any) -> None:
        nodes.slots_cache.pop(error.slot_id)
        await move_slot(nodes, error)

    monkeypatch.setattr(NodesManager, "move_slot", looked)
    await (await SlotMove.of(made, "n")).whole()
    assert await runner.run(COUNT, ["n"], []) == 2


async def test_a_slot_that_moves_to_and_fro(made: Cluster, runner: ClusterRunner):
    for number in range(8):
        assert await runner.run(COUNT, ["n"], []) == number + 1
        await (await SlotMove.of(made, "n")).whole()


async def test_a_key_that_has_left_already_is_asked_for_where_it_goes(
    made: Cluster, runner: ClusterRunner
):
    assert await runner.run(COUNT, ["n"], []) == 1
    move = await SlotMove.of(made, "n")
    await move.begin()
    assert await runner.run(COUNT, ["n"], []) == 2  # it is here yet
    await move.carry()
    calls = [runner.run(COUNT, ["n"], []) for _ in range(5)]
    assert sorted(await asyncio.gather(*calls)) == [3, 4, 5, 6, 7]
    assert await runner.command("n", "GET", "n") == b"7"
    with pytest.raises(ResponseError, match="NOT_FOUND"):
        await runner.run(FAIL, ["n"], [])
    await move.end()
    assert await runner.run(COUNT, ["n"], []) == 8


async def test_a_node_without_slots_that_gets_its_first(made: Cluster, runner: ClusterRunner):
    """It is in no layout until the slot is its own."""
    assert await runner.run(COUNT, ["n"], []) == 1
    async with another_node(made) as newcomer:
        move = await SlotMove.of(made, "n")
        move.target = newcomer
        await move.begin()
        await move.carry()
        assert await runner.run(COUNT, ["n"], []) == 2
        await move.end()
        assert await runner.run(COUNT, ["n"], []) == 3


async def test_keys_of_which_some_have_left_are_waited_for(made: Cluster, runner: ClusterRunner):
    keys = ["{n}1", "{n}2"]
    assert await runner.run(BOTH, keys, []) == 2
    move = await SlotMove.of(made, "{n}1")
    await move.begin()
    await move.source.ask("MIGRATE", HOST, move.target.port, "{n}1", 0, 5000)
    call = runner.run(BOTH, keys, [])
    others = [key for key in KEYS if await made.owner(key) is move.source]
    assert await runner.run(COUNT, [others[0]], []) == 1  # nobody else waits
    assert not call.done()
    await move.carry()
    await move.end()
    assert await call == 4


async def test_they_are_not_waited_for_for_ever(made: Cluster, runner: ClusterRunner):
    keys = ["{n}1", "{n}2"]
    await runner.run(BOTH, keys, [])
    move = await SlotMove.of(made, "{n}1")
    await move.begin()
    await move.source.ask("MIGRATE", HOST, move.target.port, "{n}1", 0, 5000)
    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match=r"TryAgain|Timeout"):
        await runner.run(BOTH, keys, [])
    assert time.monotonic() - began < WITHIN_SECONDS


async def test_what_may_have_run_is_not_sent_again(
    runner: ClusterRunner, monkeypatch: pytest.MonkeyPatch
):
    assert await runner.run(COUNT, ["n"], []) == 1
    answer = lane._answer

    async def lost(connection: Any) -> Any:
        await answer(connection)
        raise EngineConnectionError("cut")

    with monkeypatch.context() as cut:
        cut.setattr(lane, "_answer", lost)
        with pytest.raises(EngineUnavailable, match="cut"):
            await runner.run(COUNT, ["n"], [])
    assert await runner.run(COUNT, ["n"], []) == 3


async def test_connections_that_were_closed_while_free_are_noticed(
    made: Cluster, runner: ClusterRunner
):
    await count_all(runner)
    for node in made.nodes:
        await node.ask("CLIENT", "KILL", "TYPE", "normal")
    assert await count_all(runner) == [2] * len(KEYS)


async def test_a_node_that_is_dropped_meanwhile_keeps_no_connection(
    client: RedisCluster, runner: ClusterRunner, monkeypatch: pytest.MonkeyPatch
):
    await runner.run(COUNT, ["n"], [])
    nodes = client.nodes_manager
    dropped = nodes.get_node_from_slot(client.keyslot("n"))
    answer = lane._answer

    async def meanwhile_dropped(connection: Any) -> Any:
        nodes.nodes_cache.pop(dropped.name, None)
        return await answer(connection)

    with monkeypatch.context() as patch:
        patch.setattr(lane, "_answer", meanwhile_dropped)
        assert await runner.run(COUNT, ["n"], []) == 2
    await wait_until(lambda: [one.is_connected for one in dropped._connections] == [False])


async def test_what_a_dead_node_has_is_not_available_and_the_rest_is(
    made: Cluster, runner: ClusterRunner
):
    await count_all(runner)
    owner = await made.owner(KEYS[0])
    theirs = [key for key in KEYS if await made.owner(key) is owner]
    for node in made.nodes:
        await node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    await owner.stop()
    outcomes = dict(
        zip(
            KEYS,
            await asyncio.gather(
                *(runner.run(COUNT, [key], []) for key in KEYS), return_exceptions=True
            ),
            strict=True,
        )
    )
    assert {key for key, outcome in outcomes.items() if outcome != 2} == set(theirs)
    assert all(isinstance(outcomes[key], EngineUnavailable) for key in theirs)
    await owner.start()
    await wait_until(lambda: answers(runner, theirs[0]))


async def answers(runner: ClusterRunner, key: str) -> bool:
    began = time.monotonic()
    try:
        await runner.run(COUNT, [key], [])
    except EngineUnavailable:
        assert time.monotonic() - began < WITHIN_SECONDS
        return False
    return True


async def test_a_replica_takes_the_place_of_a_dead_node(made: Cluster, runner: ClusterRunner):
    await count_all(runner)
    owner = await made.owner(KEYS[0])
    async with another_node(made) as replica:
        await replica.ask("CLUSTER", "REPLICATE", (await owner.ask("CLUSTER", "MYID")).decode())
        await wait_until(lambda: follows(replica))
        await owner.kill()
        await wait_until(lambda: answers(runner, KEYS[0]), timeout=20)
        assert await count_all(runner) != []


class another_node:  # noqa: N801 - used as a function
    """A node without slots that everybody knows."""

    def __init__(self, made: Cluster) -> None:
        self._made = made
        options = {
            "cluster-enabled": "yes",
            "cluster-port": str(free_port()),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        }
        first = made.nodes[0]
        self._node = Server(first.binary, first.directory.with_name("another"), options)

    async def __aenter__(self) -> Server:
        await self._node.start()
        first = self._made.nodes[0]
        await self._node.ask("CLUSTER", "MEET", HOST, first.port, first.options["cluster-port"])
        for node in (*self._made.nodes, self._node):
            await wait_until(lambda node=node: self._is_known(node))
        return self._node

    async def __aexit__(self, *_: object) -> None:
        await self._node.stop()

    async def _is_known(self, node: Server) -> bool:
        info: bytes = await node.ask("CLUSTER", "INFO")
        wanted = {"cluster_state:ok", f"cluster_known_nodes:{len(self._made.nodes) + 1}"}
        return wanted.issubset(info.decode().split())


async def test_no_node_answers():
    client = RedisCluster("127.0.0.1", free_port())
    runner = ClusterRunner(client)
    began = time.monotonic()
    calls = [*(runner.run(ECHO, [], ["a"]) for _ in range(3)), runner.command("n", "GET", "n")]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineUnavailable] * 4
    assert time.monotonic() - began < WITHIN_SECONDS


@pytest.mark.parametrize("known", [True, False])
async def test_nodes_that_hang_are_told_within_two_seconds(
    made: Cluster, runner: ClusterRunner, known: bool
):
    if known:
        await count_all(runner)
    for node in made.nodes:
        node.pause()
    began = time.monotonic()
    outcomes = await asyncio.gather(
        *(runner.run(COUNT, [key], []) for key in KEYS), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {EngineUnavailable}
    assert time.monotonic() - began < WITHIN_SECONDS
    for node in made.nodes:
        node.resume()
    await wait_until(lambda: answers(runner, KEYS[0]))


async def test_a_slot_that_nobody_has(made: Cluster, runner: ClusterRunner):
    await count_all(runner)
    owner = await made.owner("n")
    slot = await owner.ask("CLUSTER", "KEYSLOT", "n")
    for node in made.nodes:
        await node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        await node.ask("CLUSTER", "DELSLOTS", slot)
    began = time.monotonic()
    with pytest.raises(EngineUnavailable):  # at the node that had it
        await runner.run(COUNT, ["n"], [])
    await wait_until(lambda: slot not in runner._client.nodes_manager.slots_cache)
    with pytest.raises(EngineUnavailable, match="which node"):
        await runner.run(COUNT, ["n"], [])
    assert time.monotonic() - began < 2 * WITHIN_SECONDS
    waits = runner.run(COUNT, ["n"], [])
    await owner.ask("CLUSTER", "ADDSLOTS", slot)
    assert await waits == 1


async def test_when_the_loop_is_closed_nobody_is_sent_anywhere():
    client = RedisCluster("127.0.0.1", free_port())
    runner = ClusterRunner(client)
    answer = runner.run(ECHO, [], ["a"])
    looking = runner._looking
    assert looking is not None
    looking.cancel()
    await asyncio.wait([looking])
    await asyncio.sleep(0)
    assert runner._looking is None
    assert not answer.done()
    answer.cancel()
