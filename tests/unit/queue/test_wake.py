from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from structlog.testing import capture_logs

from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.queue import keys, wake
from booking_worker.queue.wake import WakeListener
from tests.support.clients import cluster_client, master_client
from tests.support.engines import EngineFactory
from tests.support.servers import Cluster, Server, cluster, sentinel, standalone
from tests.support.stage import EVENT, Stage
from tests.support.wait import wait_until


class Ear:
    def __init__(self, client: Redis | RedisCluster) -> None:
        self.heard: list[str] = []
        self.refreshes: list[str] = []
        self.freed: list[str] = []
        self.listener = WakeListener(
            client, self.heard.append, self.refreshes.append, self.freed.extend
        )


@pytest.fixture
async def ear(redis_client: Redis) -> AsyncIterator[Ear]:
    made = Ear(redis_client)
    await made.listener.start()
    await wait_until(lambda: made.heard == [""])
    yield made
    await made.listener.stop()


async def test_something_can_be_claimed(stage: Stage, ear: Ear):
    await stage.join_one()
    await wait_until(lambda: ear.heard == ["", EVENT])


async def test_a_name_in_any_letters(redis_client: Redis, ear: Ear):
    await redis_client.publish(keys.WAKE_CHANNEL, "コンサート")
    await wait_until(lambda: ear.heard == ["", "コンサート"])


async def test_what_replicas_tell_one_another_is_heard_by_whom_it_is_for(stage: Stage, ear: Ear):
    await stage.queue.ask_for_refresh("theatre")
    await stage.queue.tell_freed(["concert", "opera"])
    await wait_until(lambda: len(ear.freed) == 2)
    assert (ear.refreshes, ear.freed, ear.heard) == (["theatre"], ["concert", "opera"], [""])


async def test_starting_twice_is_starting_and_stopping_twice_is_stopping(
    redis_client: Redis, ear: Ear
):
    await ear.listener.start()
    assert await redis_client.pubsub_numsub(keys.WAKE_CHANNEL) == [(keys.WAKE_CHANNEL.encode(), 1)]
    await ear.listener.stop()
    await ear.listener.stop()
    await wait_until(lambda: _subscribers(redis_client))


async def _pings(client: Redis) -> bool:
    stats = await client.info("commandstats")
    return stats.get("cmdstat_ping", {}).get("calls", 0) >= 5


async def _subscribers(client: Redis) -> bool:
    ((_, number),) = await client.pubsub_numsub(keys.WAKE_CHANNEL)
    return number == 0


async def test_it_can_be_started_again(redis_client: Redis, ear: Ear):
    await ear.listener.stop()
    await ear.listener.start()
    await wait_until(lambda: ear.heard == ["", ""])


async def test_after_a_lost_connection_anything_may_have_happened(redis_client: Redis, ear: Ear):
    await redis_client.client_kill_filter(_type="pubsub")
    await wait_until(lambda: ear.heard == ["", ""])
    await redis_client.publish(keys.WAKE_CHANNEL, "concert")
    await wait_until(lambda: ear.heard == ["", "", "concert"])
    assert ear.listener._pause == wake._FIRST_PAUSE_SECONDS  # as if nothing had been


@pytest.mark.parametrize("said", [b"\xff", b"a defect"])
async def test_what_nobody_expects_is_logged_and_it_goes_on(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch, said: bytes
):
    """Letters that are none, or somebody who fails at what they hear."""
    monkeypatch.setattr(wake, "_LONGEST_PAUSE_SECONDS", 0.01)
    ear = Ear(redis_client)

    def hears(event_id: str) -> None:
        if event_id == "a defect":
            raise ValueError(event_id)
        ear.heard.append(event_id)

    ear.listener = WakeListener(redis_client, hears, ear.refreshes.append, ear.freed.extend)
    await ear.listener.start()
    await wait_until(lambda: ear.heard == [""])
    with capture_logs() as lines:
        await redis_client.publish(keys.WAKE_CHANNEL, said)
        await wait_until(lambda: ear.heard == ["", ""])
    assert [line["log_level"] for line in lines] == ["error"]
    await redis_client.publish(keys.WAKE_CHANNEL, "concert")
    await wait_until(lambda: ear.heard == ["", "", "concert"])
    await ear.listener.stop()


async def test_silence_is_no_reason_to_connect_again(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(wake, "_LISTEN_SECONDS", 0.01)
    ear = Ear(redis_client)
    await ear.listener.start()
    await wait_until(lambda: ear.heard)
    rounds = await redis_client.client_list(_type="pubsub")
    # Asked, it says that it is there.
    await redis_client.config_resetstat()
    await wait_until(lambda: _pings(redis_client))
    await redis_client.publish(keys.WAKE_CHANNEL, "a")
    await wait_until(lambda: ear.heard == ["", "a"])
    again = await redis_client.client_list(_type="pubsub")
    assert [one["id"] for one in again] == [one["id"] for one in rounds]
    await ear.listener.stop()


async def test_an_engine_that_is_away_is_tried_until_it_is_back(
    engine_factory: EngineFactory, tmp_path: Path
):
    engine: EmbeddedEngine = engine_factory(tmp_path, "everysec")
    async with engine.client() as client:
        ear = Ear(client)
        await ear.listener.start()
        assert ear.heard == []
        await engine.start()
        await wait_until(lambda: ear.heard == [""])
        await ear.listener.stop()
        await engine.stop()


async def test_an_engine_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch):
    """Its connection stands, and brings nothing."""
    monkeypatch.setattr(wake, "_LISTEN_SECONDS", 0.02)
    async with standalone() as server, server.client() as client:
        ear = Ear(client)
        await ear.listener.start()
        await wait_until(lambda: ear.heard == [""])
        server.pause()
        await wait_until(lambda: ear.listener._pause > wake._FIRST_PAUSE_SECONDS)
        server.resume()
        await wait_until(lambda: ear.heard == ["", ""])
        await ear.listener.stop()


async def test_it_follows_the_master_of_the_sentinels():
    async with sentinel() as made, master_client(made) as client:
        ear = Ear(client)
        await ear.listener.start()
        await wait_until(lambda: ear.heard == [""])
        old = await made.master()
        await old.kill()
        new = await made.failed_over(old)
        await wait_until(lambda: listens(new))
        await new.ask("PUBLISH", keys.WAKE_CHANNEL, "concert")
        await wait_until(lambda: "concert" in ear.heard)
        await ear.listener.stop()


async def listens(server: Server) -> bool:
    return bool(await server.ask("PUBSUB", "NUMSUB", keys.WAKE_CHANNEL) != [b"booking-wake", 0])


async def whom_it_hears(made: Cluster) -> Server:
    """The node that it is connected to."""
    for node in made.nodes:
        if node.process is not None and await listens(node):
            return node
    raise AssertionError


async def test_in_a_cluster_it_hears_what_any_node_says_and_survives_its_own():
    async with cluster() as made, cluster_client(made) as client:
        ear = Ear(client)
        await ear.listener.start()
        await wait_until(lambda: ear.heard == [""])
        for number, node in enumerate(made.nodes):
            await node.ask("PUBLISH", keys.WAKE_CHANNEL, f"event-{number}")
            await wait_until(lambda number=number: ear.heard[-1] == f"event-{number}")
        node = await whom_it_hears(made)
        await node.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await wait_until(lambda: ear.heard[-1] == "")
        node = await whom_it_hears(made)
        await node.kill()
        await wait_until(lambda: ear.heard[-2:] == ["", ""])
        alive = next(one for one in made.nodes if one is not node)
        await alive.ask("PUBLISH", keys.WAKE_CHANNEL, "concert")
        await wait_until(lambda: ear.heard[-1] == "concert")
        await ear.listener.stop()


async def test_a_cluster_that_is_away_is_tried_until_it_is_back():
    async with cluster() as made:
        client = cluster_client(made)
        for node in made.nodes:
            await node.stop()
        ear = Ear(client)
        await ear.listener.start()
        await wait_until(lambda: ear.listener._pause > wake._FIRST_PAUSE_SECONDS)
        for node in made.nodes:
            await node.start()
        await wait_until(lambda: ear.heard == [""])
        await ear.listener.stop()
        await client.aclose()
