from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from booking_worker.domain.model import Change
from booking_worker.queue import changes as changes_file
from booking_worker.queue import keys
from booking_worker.queue.changes import ChangeFeed
from tests.support.engines import SharedEngine
from tests.support.stage import EVENT, LIMITS, Stage, a_join
from tests.support.wait import wait_until


class Follower:
    """A feed, and what it handed over."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.taken: list[Change] = []
        self.gaps: list[str] = []
        self.errors: list[Exception] = []
        self.refusals = 0
        self.feed = self.another()

    def another(self) -> ChangeFeed:
        """As after a restart: it knows nothing but what the engine kept."""
        self.feed = ChangeFeed(self.client, self.take, self.gaps.append, self.errors.append)
        return self.feed

    async def take(self, changes: Sequence[Change]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ValueError("the disk is full")
        self.taken += changes

    @property
    def users(self) -> list[str]:
        return [change.user_id for change in self.taken]


@pytest.fixture
async def follower(stage: Stage) -> AsyncIterator[Follower]:
    made = Follower(stage.client)
    yield made
    await made.feed.stop()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for events, and save, on every round."""
    monkeypatch.setattr(changes_file, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(changes_file, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(changes_file, "_BLOCK_MS", 20)
    monkeypatch.setattr(changes_file, "_PAUSE_SECONDS", 0.01)


@pytest.mark.usefixtures("at_once")
async def test_all_changes_of_all_events_in_order(stage: Stage, follower: Follower):
    await stage.join_one("ann")
    await stage.join_one("tom", event_id="theatre")
    await follower.feed.start()
    await wait_until(lambda: len(follower.taken) == 2)
    await stage.join_one("ben")
    await stage.queue.cancel(follower.taken[0].item_id, "", "no", "operator:eve")
    await wait_until(lambda: len(follower.taken) == 4)
    of_event = [change for change in follower.taken if change.event_id == EVENT]
    assert of_event == await stage.changes()
    assert {change.event_id for change in follower.taken} == {EVENT, "theatre"}


async def test_what_happened_until_the_stop_is_handed_over(stage: Stage, follower: Follower):
    await follower.feed.start()
    await follower.feed.start()
    await stage.join(*(a_join(f"user-{at}") for at in range(50)))
    for at in range(450):
        await stage.join_one(f"late-{at}")
    await follower.feed.stop()
    await follower.feed.stop()
    assert len(follower.taken) == 500


async def test_what_happened_while_it_had_nothing_to_follow_is_handed_over_at_the_stop(
    stage: Stage, follower: Follower
):
    await follower.feed.start()
    await wait_until(lambda: follower.feed._looked_at > 0)
    await stage.join_one("ann")
    await follower.feed.stop()
    assert follower.users == ["ann"]


@pytest.mark.usefixtures("at_once")
async def test_after_a_stop_it_goes_on_where_it_was(stage: Stage, follower: Follower):
    await stage.join_one("ann")
    await follower.feed.start()
    await wait_until(lambda: follower.users == ["ann"])
    await follower.feed.stop()
    await stage.join_one("ben")
    feed = follower.another()
    await feed.start()
    await wait_until(lambda: follower.users == ["ann", "ben"])
    assert follower.gaps == follower.errors == []


async def test_after_a_crash_the_last_come_again_with_the_same_ids(
    stage: Stage, follower: Follower
):
    await stage.join_one("ann")
    await follower.feed.run_once()  # taken and saved
    await stage.join_one("ben")
    await follower.feed.run_once()  # taken, not yet saved
    assert follower.users == ["ann", "ben"]
    await follower.another().run_once()
    assert follower.users == ["ann", "ben", "ben"]
    assert follower.taken[1] == follower.taken[2]


@pytest.mark.usefixtures("at_once")
async def test_what_a_handler_does_not_take_comes_again(stage: Stage, follower: Follower):
    follower.refusals = 3
    await stage.join_one("ann")
    await follower.feed.start()
    await wait_until(lambda: follower.users == ["ann"])
    assert [str(error) for error in follower.errors] == ["the disk is full"] * 3


async def test_a_handler_that_never_takes_it_does_not_hold_up_the_stop(
    stage: Stage, follower: Follower
):
    await stage.join_one("ann")
    await follower.feed.start()
    follower.refusals = 10**9
    await wait_until(lambda: follower.errors)
    await follower.feed.stop()
    follower.refusals = 0
    await follower.another().run_once()
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
    await follower.feed.start()
    await wait_until(lambda: len(follower.errors) > 1)
    away = False
    await wait_until(lambda: follower.users == ["ann"])


async def test_an_event_that_is_new_is_looked_for_when_woken(
    stage: Stage, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes_file, "_LOOK_SECONDS", 1_000.0)
    follower.another()
    assert not await follower.feed.run_once()  # nothing to follow yet
    await stage.join_one("ann")
    assert not await follower.feed.run_once()  # it looks now and then
    follower.feed.wake(EVENT)
    assert await follower.feed.run_once()
    await stage.join_one("tom", event_id="theatre")
    follower.feed.wake(EVENT)  # is followed: no need to look
    assert not await follower.feed.run_once()


@pytest.mark.usefixtures("at_once")
async def test_what_was_taken_long_ago_is_cut_off(
    stage: Stage, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes_file, "_KEEP_MS", 0)
    for at in range(300):
        await stage.join_one(f"user-{at}")
    while await follower.feed.run_once():
        pass
    assert len(follower.taken) == 300
    assert await stage.client.xlen(stage.key("changes")) < 200
    await stage.client.flushall()


@pytest.mark.usefixtures("at_once")
async def test_what_was_cut_off_by_the_feed_itself_is_no_gap(stage: Stage, follower: Follower):
    await stage.join_one("ann")
    await follower.feed.run_once()
    await stage.client.xtrim(
        stage.key("changes"), minid=follower.taken[-1].change_id[:-2], approximate=False
    )
    await stage.join_one("ben")
    await follower.another().run_once()
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
        await follower.feed.run_once()
    for at in range(5):
        await stage.join_one(f"user-{at}")
    await stage.client.xtrim(stage.key("changes"), maxlen=kept, approximate=False)
    await follower.another().run_once()
    assert follower.gaps == [EVENT]
    await stage.client.flushall()


@pytest.mark.usefixtures("at_once")
async def test_an_event_to_which_nothing_happened_yet_has_no_gap(stage: Stage, follower: Follower):
    await stage.client.zadd(keys.EVENTS, {"quiet": 1})
    await follower.feed.run_once()
    assert follower.gaps == []


@pytest.mark.usefixtures("at_once")
async def test_an_event_that_is_over_is_followed_no_more_until_it_is_joined_again(
    stage: Stage, follower: Follower
):
    item_id = await stage.join_one("ann")
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    await follower.feed.run_once()
    await stage.client.delete(stage.key("results") + item_id)
    await stage.clock.advance(LIMITS.result_ttl_ms)
    assert await stage.queue.retire() == [EVENT]
    await follower.feed.run_once()
    assert follower.feed._cursors == follower.feed._saved == {}
    stage.queue._remembered.clear()
    await stage.join_one("ben")
    await follower.feed.run_once()
    assert follower.users == ["ann", "ann", "ben"]
    assert follower.gaps == []
    await stage.client.flushall()  # its feed begins in the midst of its story


async def test_where_it_got_to_is_kept_before_an_event_is_forgotten(
    stage: Stage, follower: Follower
):
    await stage.join_one("ann")
    await follower.feed.run_once()  # taken and saved
    await stage.join_one("ben")
    await follower.feed.run_once()  # taken, not yet saved
    await stage.client.delete(keys.EVENTS)
    follower.feed._looked_at = -2.0
    await follower.feed.run_once()
    assert list(follower.feed._cursors) == [EVENT]
    await follower.feed._save()
    follower.feed._looked_at = -2.0
    await follower.feed.run_once()
    assert follower.feed._cursors == {}


async def test_a_client_of_the_newer_protocol(stage: Stage, engine: SharedEngine):
    """RESP3 answers maps where RESP2 answers lists."""
    async with Redis(unix_socket_path=str(engine.engine.socket), protocol=3) as client:
        follower = Follower(client)
        await stage.join_one("ann")
        await follower.feed.run_once()
        assert follower.users == ["ann"]
        assert not await follower.feed.run_once()
        await follower.feed.stop()


async def test_stopping_before_the_start_is_stopping(follower: Follower):
    await follower.feed.stop()
    await asyncio.sleep(0)
    assert follower.taken == []


@pytest.mark.parametrize("name", ["a{b", "ü-💃", "100%"])
def test_the_event_of_a_stream(name: str):
    assert changes_file._event_of_stream(keys.of_event(name)["changes"]) == name


def test_entries_are_ordered_by_time_and_number():
    assert changes_file._order("9-10") > changes_file._order("9-9") > changes_file._order("8-99")
