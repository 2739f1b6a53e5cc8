from __future__ import annotations

from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.booking_queue import Look, TakenOver
from booking_worker.queue.lock import TTL_SECONDS, Redlock
from booking_worker.worker import housekeeping
from booking_worker.worker.housekeeping import Housekeeping
from tests.support.api import on_one_engine
from tests.support.stage import EVENT, Stage, nowhere
from tests.support.wait import wait_until

pytestmark = on_one_engine


class Time:
    """Of one replica; the locks lapse on the engine's own clock."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """One replica's housekeeping, driven by hand."""

    def __init__(self, stage: Stage) -> None:
        self.time = Time()
        self.lock = Redlock([stage.client], clock=self.time)
        self.house = Housekeeping(stage.queue, self.lock, clock=self.time, rand=lambda: 0.0)
        self.news: list[str] = []
        self.house.listen(self.news.append)

    async def passes(self, seconds: float) -> None:
        """Let time pass for this replica, and do what is due then."""
        self.time.now += seconds
        await self.house.run_once()


@pytest.fixture
def one(stage: Stage) -> Replica:
    return Replica(stage)


@pytest.fixture
def other(stage: Stage) -> Replica:
    return Replica(stage)


async def told(stage: Stage, event_id: str = EVENT) -> None:
    """As if people had been told of all that happened."""
    changes = f"booking-changes:{{{event_id}}}"
    ((last, _),) = await stage.client.xrevrange(changes, count=1)
    await stage.client.hset(f"booking-state:{{{event_id}}}", "cursor", last)


async def over(stage: Stage, event_id: str) -> None:
    """An event that is over, and of which all is told."""
    item_id = await stage.join_one(event_id=event_id)
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    await told(stage, event_id)


async def lapse(stage: Stage, event_id: str = EVENT) -> None:
    await stage.client.delete(f"booking-lock:{{{event_id}}}")


async def test_of_two_replicas_one_looks_after_an_event(stage: Stage, one: Replica, other: Replica):
    await stage.join_one()
    await one.passes(0)
    await other.passes(0)
    assert (one.house.is_ours(EVENT), one.house.is_elsewhere(EVENT)) == (True, False)
    assert (other.house.is_ours(EVENT), other.house.is_elsewhere(EVENT)) == (False, True)
    assert list(one.house.held()) == [EVENT]
    assert other.house.held() == {}
    assert list(other.house.alive) == [EVENT]
    assert one.news == [EVENT, EVENT]  # it lives; it is ours
    assert other.news == [EVENT]


async def test_it_is_kept_as_long_as_it_is_alive_under_one_token(
    stage: Stage, one: Replica, other: Replica
):
    await stage.join_one()
    await one.passes(0)
    (hold,) = one.house.held().values()
    for _ in range(15):
        await stage.client.pexpire(stage.key("lock"), 100)
        await one.passes(1)
        assert await stage.client.pttl(stage.key("lock")) > 1_000
        await other.passes(1)
    (kept,) = one.house.held().values()
    assert kept.token == hold.token
    assert kept.until > hold.until
    assert not other.house.is_ours(EVENT)


async def test_an_event_that_is_over_has_no_lock_and_is_found_when_it_is_not(
    stage: Stage, one: Replica
):
    for at in range(60):
        await over(stage, f"event-{at}")
    await one.passes(0)
    assert not one.house.alive
    item_id = await stage.join_one(event_id="event-7")  # nobody hears of it
    for _ in range(3):
        await one.passes(1)
    assert list(one.house.held()) == ["event-7"]
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    await one.passes(11)
    assert one.house.is_ours("event-7")  # nobody was told that it is over
    await told(stage, "event-7")
    await one.passes(11)
    assert not one.house.alive
    assert not await stage.client.exists("booking-lock:{event-7}")


async def test_who_is_gone_is_followed_by_another_with_a_greater_token(
    stage: Stage, one: Replica, other: Replica
):
    await stage.join_one()
    await one.passes(0)
    await other.passes(0)
    await lapse(stage)
    await other.passes(TTL_SECONDS + 0.1)  # it asks again when the lock that it saw would lapse
    assert other.house.is_ours(EVENT)
    assert other.house.held()[EVENT].token > one.house.held()[EVENT].token


async def test_who_was_stopped_for_longer_than_its_lock_knows_at_once(
    stage: Stage, one: Replica, other: Replica
):
    await stage.join_one()
    await one.passes(0)
    await lapse(stage)
    await other.passes(0)
    one.time.now += TTL_SECONDS
    assert not one.house.is_ours(EVENT)
    assert one.house.held() == {}
    await one.passes(0)
    assert one.house.is_elsewhere(EVENT)


async def test_who_lets_its_lock_lapse_and_gets_it_again_gets_another_token(
    stage: Stage, one: Replica
):
    """Somebody may have had it in between."""
    await stage.join_one()
    await one.passes(0)
    (hold,) = one.house.held().values()
    await one.passes(TTL_SECONDS)
    assert one.house.held()[EVENT].token > hold.token


async def test_an_event_that_was_overtaken_is_let_go_and_tried_for(stage: Stage, one: Replica):
    await stage.join_one()
    await one.passes(0)
    one.house.overtaken(EVENT)
    one.house.overtaken(EVENT)
    assert not one.house.is_ours(EVENT)
    await one.passes(0)
    assert one.house.held()[EVENT].token == 2


async def test_whoever_stops_lets_others_go_on_at_once(stage: Stage, one: Replica, other: Replica):
    await stage.join_one()
    await one.house.start()
    await one.house.start()
    await wait_until(lambda: one.house.is_ours(EVENT))
    await other.passes(0)
    async with stage.client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe("booking-free")
        await one.house.stop()
        await one.house.stop()
        message = await wait_until(pubsub.get_message)
    other.house.freed(message["data"].decode().split("\n"))
    assert not other.house.is_elsewhere(EVENT)
    await other.passes(0)
    assert other.house.is_ours(EVENT)


async def test_a_replica_that_hands_over_takes_what_happens_meanwhile(stage: Stage, one: Replica):
    await stage.join_one()
    await told(stage)
    await one.passes(0)
    assert not await one.house.hand_over()
    assert not await stage.client.exists(stage.key("lock"))
    await stage.join_one("ben")
    assert await one.house.hand_over()
    await told(stage)
    assert not await one.house.hand_over()


async def test_at_its_end_it_leaves_untold_what_one_who_lives_will_tell(stage: Stage, one: Replica):
    living = Redlock([stage.client])
    await living.hold([EVENT])
    await stage.join_one()
    one.house._clock = living._clock
    kept = one.house._hold

    async def and_the_other_keeps_it(event_ids):
        await living.hold(event_ids)
        await kept(event_ids)

    one.house._hold = and_the_other_keeps_it  # type: ignore[method-assign]
    assert not await one.house.hand_over()
    assert one.house.held() == {}


async def test_news_of_any_event_has_all_looked_at(stage: Stage, one: Replica):
    await one.passes(0)
    await stage.join_one()
    await one.passes(0)
    assert not one.house.alive
    one.house.wake("")
    await one.passes(0)
    assert list(one.house.held()) == [EVENT]


async def test_an_engine_that_gives_no_token_gives_no_hold(
    stage: Stage, one: Replica, monkeypatch: pytest.MonkeyPatch
):
    async def away(_: str) -> TakenOver:
        raise EngineUnavailable("away")

    await stage.join_one()
    with monkeypatch.context() as patched:
        patched.setattr(stage.queue, "take_over", away)
        with pytest.raises(EngineUnavailable):
            await one.passes(0)
        assert one.house.held() == {}
    await one.passes(0)
    assert one.house.is_ours(EVENT)


async def test_it_goes_on_whatever_happens(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(housekeeping, "_LONGEST_PAUSE_SECONDS", 0.01)
    one = Replica(stage)
    run_once = one.house.run_once
    troubles: list[Exception] = [EngineUnavailable("away"), ValueError("a defect")]

    async def troubled() -> float:
        if troubles:
            raise troubles.pop()
        return await run_once()

    monkeypatch.setattr(one.house, "run_once", troubled)
    await stage.join_one()
    await one.house.start()
    await wait_until(lambda: one.house.is_ours(EVENT))
    await one.house.stop()


async def test_it_can_be_stopped_while_the_engine_is_away(stage: Stage, redis_client: Redis):
    queue = nowhere()
    house = Housekeeping(queue, Redlock([queue._client]))
    house.want(EVENT)
    await house.start()
    await house.stop()
    await queue._client.aclose()


async def test_votes_that_are_split_are_given_back(stage: Stage, one: Replica, redis_client: Redis):
    """Of two nodes one is another's: the one that was had is let go of."""
    split = Redlock([redis_client, redis_client], clock=one.time)
    votes = [1, -2_000]

    async def ask(script, event_ids, *args):
        if script is split._hold:
            await redis_client.set(stage.key("lock"), split._owner)
            return [[vote] for vote in votes]
        return await asked(script, event_ids, *args)

    asked, split._ask = split._ask, ask  # type: ignore[method-assign]
    house = Housekeeping(stage.queue, split, clock=one.time)
    await stage.join_one()
    await house.run_once()
    assert not house.is_ours(EVENT)
    assert not await stage.client.exists(stage.key("lock"))
    assert not await house.is_our_turn(30.0)


async def test_what_could_not_be_looked_at_is_looked_at_when_the_engine_is_back(
    stage: Stage, one: Replica, monkeypatch: pytest.MonkeyPatch
):
    for at in range(60):
        await over(stage, f"event-{at}")
    await stage.join_one(event_id="event-59")

    async def away(_: str) -> None:
        raise EngineUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(stage.queue, "look", away)
        with pytest.raises(EngineUnavailable):
            await one.passes(0)
    await one.passes(0)
    assert list(one.house.held()) == ["event-59"]


def node_is_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, on_look: Callable[[], object] = lambda: None
) -> None:
    """From now on the node of a Cluster that keeps the event ``away`` does not answer."""
    look, take_over = stage.queue.look, stage.queue.take_over

    async def looked(event_id: str) -> Look:
        if event_id == "away":
            on_look()
            raise EngineUnavailable("away")
        return await look(event_id)

    async def taken_over(event_id: str) -> TakenOver:
        if event_id == "away":
            raise EngineUnavailable("away")
        return await take_over(event_id)

    monkeypatch.setattr(stage.queue, "look", looked)
    monkeypatch.setattr(stage.queue, "take_over", taken_over)


async def test_a_node_that_is_away_costs_no_other_event_its_lock(
    stage: Stage, one: Replica, monkeypatch: pytest.MonkeyPatch
):
    """Though each look at it takes nearly as long as a lock lasts."""
    await stage.join_one()
    await one.passes(0)
    (hold,) = one.house.held().values()

    def hangs() -> None:
        one.time.now += 1.8

    node_is_away(stage, monkeypatch, hangs)
    await stage.join_one(event_id="away")
    for _ in range(10):
        with pytest.raises(EngineUnavailable):
            await one.passes(1.3)
        assert one.house.held()[EVENT].token == hold.token


async def test_while_a_node_is_away_other_events_are_found_and_given_up(
    stage: Stage, one: Replica, monkeypatch: pytest.MonkeyPatch
):
    await stage.join_one(event_id="away")
    item_id = await stage.join_one(event_id="ending")
    await one.passes(0)
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    await told(stage, "ending")
    node_is_away(stage, monkeypatch)
    await stage.join_one()
    with pytest.raises(EngineUnavailable):
        await one.passes(11)
    assert one.house.is_ours(EVENT)
    assert set(one.house.alive) == {EVENT, "away"}


async def test_an_event_that_is_woken_while_it_is_looked_at_is_not_given_up(
    stage: Stage, one: Replica, monkeypatch: pytest.MonkeyPatch
):
    item_id = await stage.join_one()
    await one.passes(0)
    await stage.queue.cancel(item_id, "ann", "no", "user:ann")
    await told(stage)
    look = stage.queue.look

    async def woken_meanwhile(event_id: str) -> Look:
        found = await look(event_id)
        one.house.wake(event_id)
        return found

    monkeypatch.setattr(stage.queue, "look", woken_meanwhile)
    await one.passes(11)
    assert one.house.is_ours(EVENT)


async def test_a_node_that_is_away_keeps_nobody_from_handing_over_the_others(
    stage: Stage, one: Replica, monkeypatch: pytest.MonkeyPatch
):
    await stage.join_one(event_id="away")
    await stage.join_one()
    node_is_away(stage, monkeypatch)
    assert await one.house.hand_over()
    assert list(one.house.held()) == [EVENT]
    await told(stage)
    with pytest.raises(EngineUnavailable):
        await one.house.hand_over()
    look = stage.queue.look

    async def untold(event_id: str) -> Look:
        return (await look(EVENT))._replace(untold=event_id == "away")

    monkeypatch.setattr(stage.queue, "look", untold)
    with pytest.raises(EngineUnavailable):
        await one.house.hand_over()
