from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from booking_worker.domain.model import Change
from booking_worker.queue import changes as changes_file
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.engines import SharedEngine
from tests.support.follower import Follower
from tests.support.guards import scripts_without
from tests.support.servers import HOST, cluster
from tests.support.stage import EVENT, LIMITS, Stage, a_join
from tests.support.wait import wait_until


@pytest.fixture
async def follower(stage: Stage) -> AsyncIterator[Follower]:
    made = Follower(stage.client, stage.queue)
    yield made
    await made.stop()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save on every round, and wait for nothing long."""
    monkeypatch.setattr(changes_file, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(changes_file, "_BLOCK_MS", 20)
    monkeypatch.setattr(changes_file, "_PAUSE_SECONDS", 0.01)


@pytest.mark.usefixtures("at_once")
async def test_all_changes_of_all_events_in_order(stage: Stage, follower: Follower):
    await stage.join_one("ann")
    await stage.join_one("tom", event_id="theatre")
    await follower.start()
    await wait_until(lambda: len(follower.taken) == 2)
    await stage.join_one("ben")
    await stage.queue.cancel(follower.taken[0].item_id, "", "no", "operator:eve")
    await wait_until(lambda: len(follower.taken) == 4)
    of_event = [change for change in follower.taken if change.event_id == EVENT]
    assert of_event == await stage.changes()
    assert {change.event_id for change in follower.taken} == {EVENT, "theatre"}


async def test_what_happened_until_the_stop_is_handed_over(stage: Stage, follower: Follower):
    await follower.start()
    await follower.start()
    await stage.join(*(a_join(f"user-{at}") for at in range(50)))
    for at in range(450):
        await stage.join_one(f"late-{at}")
    await follower.feed.stop()
    await follower.feed.stop()
    assert len(follower.taken) == 500


async def test_a_backlog_is_handed_over_bit_by_bit_and_without_a_pause(
    stage: Stage, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes_file, "_ENTRIES_PER_READ", 5)
    monkeypatch.setattr(changes_file, "_CHANGES_AT_ONCE", 50)
    monkeypatch.setattr(changes_file, "_GATHER_SECONDS", 1_000)
    for batch in range(10):
        await stage.join(*(a_join(f"user-{batch}-{at}") for at in range(30)))
    portions: list[int] = []
    take = follower.feed._on_changes

    async def counted(changes: Sequence[Change]) -> None:
        portions.append(len(changes))
        await take(changes)

    monkeypatch.setattr(follower.feed, "_on_changes", counted)
    await follower.start()
    await wait_until(lambda: len(follower.taken) == 300)
    assert portions == [60, 60, 30] * 2
    assert follower.taken == await stage.changes()


async def test_what_happened_while_it_had_nothing_to_follow_is_handed_over_at_the_stop(
    stage: Stage, follower: Follower
):
    await follower.start()
    await stage.join_one("ann")
    await follower.feed.stop()
    assert follower.users == ["ann"]


@pytest.mark.usefixtures("at_once")
async def test_after_a_stop_it_goes_on_where_it_was(stage: Stage, follower: Follower):
    await stage.join_one("ann")
    await follower.start()
    await wait_until(lambda: follower.users == ["ann"])
    await follower.feed.stop()
    await stage.join_one("ben")
    follower.another()
    await follower.start()
    await wait_until(lambda: follower.users == ["ann", "ben"])
    assert follower.gaps == follower.errors == []


async def test_after_a_crash_the_last_come_again_with_the_same_ids(
    stage: Stage, follower: Follower
):
    await stage.join_one("ann")
    await follower.run_once()  # taken and saved
    await stage.join_one("ben")
    await follower.run_once()  # taken, not yet saved
    assert follower.users == ["ann", "ben"]
    await follower.crash()
    await follower.run_once()
    assert follower.users == ["ann", "ben", "ben"]
    assert follower.taken[1] == follower.taken[2]


@pytest.mark.usefixtures("at_once")
async def test_what_a_handler_does_not_take_comes_again(stage: Stage, follower: Follower):
    follower.refusals = 3
    await stage.join_one("ann")
    await follower.start()
    await wait_until(lambda: follower.users == ["ann"])
    assert [str(error) for error in follower.errors] == ["the disk is full"] * 3
    await wait_until(lambda: not follower.feed.trouble)


async def test_a_handler_that_never_takes_it_does_not_hold_up_the_stop(
    stage: Stage, follower: Follower
):
    await stage.join_one("ann")
    await follower.start()
    follower.refusals = 10**9
    await wait_until(lambda: follower.errors)
    assert follower.feed.trouble == "ValueError: the disk is full"
    await follower.feed.stop()
    follower.refusals = 0
    await follower.crash()
    await follower.run_once()
    assert follower.users == ["ann"]


@pytest.mark.usefixtures("at_once")
async def test_an_engine_that_is_away_is_told_and_waited_for(
    stage: Stage, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    away = True
    read = follower.feed._read

    async def reading():
        if away:
            raise RedisConnectionError("away")
        return await read()

    monkeypatch.setattr(follower.feed, "_read", reading)
    await stage.join_one("ann")
    await follower.start()
    await wait_until(lambda: len(follower.errors) > 1)
    away = False
    await wait_until(lambda: follower.users == ["ann"])


async def test_an_event_that_is_new_is_followed_when_woken(stage: Stage, follower: Follower):
    assert not await follower.run_once()  # nothing to follow yet
    await stage.join_one("ann")
    follower.house._rounds._due_at += 1_000
    assert not await follower.run_once()  # it looks now and then
    follower.house.wake(EVENT)
    assert await follower.run_once()


async def test_two_share_the_events_and_each_change_is_told_once(stage: Stage, follower: Follower):
    other = Follower(stage.client, stage.queue)
    for one in (follower, other):
        await one.start()
    for at in range(50):
        await stage.join_one(f"user-{at}", event_id=f"event-{at % 5}")
    await wait_until(lambda: len(follower.taken + other.taken) >= 50)
    await other.stop()
    await follower.stop()
    assert len(follower.taken + other.taken) == 50
    told = {(change.event_id, change.change_id) for change in follower.taken + other.taken}
    assert len(told) == 50


async def test_after_a_stop_another_goes_on_at_once(stage: Stage, follower: Follower):
    other = Follower(stage.client, stage.queue)
    await stage.join_one("ann")
    await follower.start()
    await wait_until(lambda: follower.users == ["ann"])
    await other.start()
    await wait_until(lambda: other.house.is_elsewhere(EVENT))
    await follower.stop()
    assert await stage.client.get(stage.key("lock")) in {None, other.house._lock._owner.encode()}
    await stage.join_one("ben")
    await wait_until(lambda: other.users == ["ben"])
    await other.stop()


async def paused(stage: Stage, follower: Follower) -> str:
    """The cursor when a holder goes on that was stopped until another was further."""
    other = Follower(stage.client, follower.queue)
    await stage.join_one("ann")
    await follower.run_once()
    await stage.client.delete(stage.key("lock"))  # it lapsed, as nobody kept it
    await stage.join_one("ben")
    await other.run_once()
    await other.feed._save()
    assert other.users == ["ben"]
    follower.feed._followed[EVENT].saved = "0-0"
    await follower.feed._save()
    await other.house.stop()
    cursor = await stage.client.hget(stage.key("state"), "cursor")
    at = [change.change_id.rsplit("-", 1)[0] for change in follower.taken + other.taken]
    return ["ann", "ben"][at.index(cursor.decode())]


async def test_one_who_was_stopped_for_long_does_not_move_the_cursor_back(
    stage: Stage, follower: Follower
):
    assert await paused(stage, follower) == "ben"
    assert not follower.house.is_ours(EVENT)
    assert not await follower.feed.run_once()


async def test_the_cursor_would_move_back_without_the_fence(stage: Stage):
    queue = BookingQueue(stage.client, LIMITS, scripts_without("the fence of the feed"))
    follower = Follower(stage.client, queue)
    assert await paused(stage, follower) == "ann"


async def test_what_was_read_while_another_took_over_is_left_to_that_one(
    stage: Stage, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    await stage.join_one("ann")
    await follower.house.run_once()
    read = follower.feed._read

    async def slow():
        found = await read()
        follower.house.overtaken(EVENT)
        return found

    monkeypatch.setattr(follower.feed, "_read", slow)
    assert not await follower.feed.run_once()
    assert follower.taken == []


async def test_at_a_stop_it_waits_for_the_lock_of_one_who_died(
    stage: Stage, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    await stage.client.set(stage.key("lock"), "one who died", px=300)
    await follower.start()
    await stage.join_one("ann")
    await follower.feed.stop()
    assert follower.users == ["ann"]


@pytest.mark.usefixtures("at_once")
async def test_what_was_taken_long_ago_is_cut_off(
    stage: Stage, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes_file, "_KEEP_MS", 0)
    for at in range(300):
        await stage.join_one(f"user-{at}")
    while await follower.run_once():
        pass
    assert len(follower.taken) == 300
    assert await stage.client.xlen(stage.key("changes")) < 200
    await stage.client.flushall()


@pytest.mark.usefixtures("at_once")
async def test_what_was_cut_off_by_the_feed_itself_is_no_gap(stage: Stage, follower: Follower):
    await stage.join_one("ann")
    await follower.run_once()
    await stage.client.xtrim(
        stage.key("changes"), minid=follower.taken[-1].change_id[:-2], approximate=False
    )
    await stage.join_one("ben")
    await follower.crash()
    await follower.run_once()
    assert follower.users == ["ann", "ben"]
    assert follower.gaps == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("followed_before", [True, False])
@pytest.mark.parametrize("kept", [1, 0])
async def test_a_cap_that_cut_off_what_nobody_has_read_is_a_gap(
    stage: Stage, follower: Follower, followed_before: bool, kept: int
):
    if followed_before:
        await stage.join_one("first")
        await follower.run_once()
    for at in range(5):
        await stage.join_one(f"user-{at}")
    await stage.client.xtrim(stage.key("changes"), maxlen=kept, approximate=False)
    await follower.crash()
    await follower.run_once()
    assert follower.gaps == [EVENT]
    await stage.client.flushall()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("cut", [False, True])
async def test_what_the_cap_cut_off_while_nothing_could_be_taken_is_a_gap(
    stage: Stage, follower: Follower, cut: bool
):
    await stage.join_one("ann")
    await follower.run_once()
    follower.feed.trouble = "no room"
    await stage.join_one("ben")
    await stage.join_one("eve")
    await stage.client.xtrim(stage.key("changes"), maxlen=1 if cut else 9, approximate=False)
    await follower.run_once()
    assert follower.users == (["ann", "eve"] if cut else ["ann", "ben", "eve"])
    assert follower.gaps == ([EVENT] if cut else [])
    await stage.client.flushall()


async def test_an_event_to_which_nothing_happened_yet_has_no_gap(stage: Stage, follower: Follower):
    await stage.client.zadd(keys.EVENTS, {"quiet": 1})
    follower.house.wake("quiet")
    await follower.run_once()
    assert "quiet" in follower.house.held()
    assert follower.gaps == []


@pytest.mark.usefixtures("at_once")
async def test_an_event_that_is_over_is_followed_no_more_until_it_is_joined_again(
    stage: Stage, follower: Follower
):
    item_id = await stage.join_one("ann")
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    await follower.run_once()
    await stage.client.delete(stage.key("results") + item_id)
    await stage.clock.advance(LIMITS.result_ttl_ms)
    assert await stage.queue.retire() == [EVENT]
    follower.house._alive[EVENT] = 0.0
    await follower.run_once()
    assert follower.house.held() == {}
    stage.queue._remembered.clear()
    await stage.join_one("ben")
    follower.house.wake(EVENT)
    await follower.run_once()
    assert follower.users == ["ann", "ann", "ben"]
    assert follower.gaps == []
    await stage.client.flushall()  # its feed begins in the midst of its story


async def test_a_client_of_the_newer_protocol(stage: Stage, engine: SharedEngine):
    """RESP3 answers maps where RESP2 answers lists."""
    async with Redis(unix_socket_path=str(engine.engine.socket), protocol=3) as client:
        follower = Follower(client, stage.queue)
        await stage.join_one("ann")
        await follower.run_once()
        assert follower.users == ["ann"]
        assert not await follower.run_once()
        await follower.stop()


async def test_stopping_before_the_start_is_stopping(follower: Follower):
    await follower.feed.stop()
    assert follower.taken == []


@pytest.mark.parametrize("name", ["a{b", "ü-💃", "100%"])
def test_the_event_of_a_stream(name: str):
    assert changes_file._event_of_stream(keys.of_event(name)["changes"]) == name


def test_entries_are_ordered_by_time_and_number():
    assert changes_file._order("9-10") > changes_file._order("9-9") > changes_file._order("8-99")


async def test_in_a_cluster_the_events_lie_on_several_nodes():
    async with cluster() as made, contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(RedisCluster(host=HOST, port=made.nodes[0].port))
        queue = BookingQueue(client, LIMITS)
        follower, other = Follower(client, queue), Follower(client, queue)
        events = [f"event-{at}" for at in range(12)]
        assert len({(await made.owner(keys.of_event(at)["changes"])).port for at in events}) == 3
        await follower.start()
        await other.start()
        for name in events:
            await queue.join(name, [a_join(f"user-{at}", event_id=name) for at in range(5)])
        await wait_until(lambda: len(follower.taken + other.taken) >= 60)
        await follower.stop()
        await queue.join("event-3", [a_join("late", event_id="event-3")])
        await wait_until(lambda: "late" in other.users)
        await other.stop()
        told = [(change.event_id, change.change_id) for change in follower.taken + other.taken]
        assert len(told) == len(set(told)) == 61
        assert follower.errors == other.errors == follower.gaps == other.gaps == []
        last = Follower(client, queue)
        assert not await last.run_once()
        await last.stop()
