from __future__ import annotations

import asyncio
from typing import Any

import pytest

from booking_worker.api import health as health_module
from booking_worker.api.health import (
    Finding,
    Grade,
    Health,
    admission_check,
    capacity_check,
    engine_check,
    feed_check,
    lock_check,
    peer_check,
    worker_check,
)
from booking_worker.domain.errors import EngineUnavailable, PeerBreakerOpen, PeerUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Switch:
    """A check that finds what it is set to, and counts."""

    def __init__(self, finding: Finding | Exception) -> None:
        self.finding = finding
        self.asked = 0

    async def __call__(self) -> Finding:
        self.asked += 1
        if isinstance(self.finding, Exception):
            raise self.finding
        return self.finding


WELL = Finding(Grade.HEALTHY, "")
WEAK = Finding(Grade.DEGRADED, "slow")
DOWN = Finding(Grade.UNHEALTHY, "gone")


async def test_all_is_well():
    report = await Health({"a": Switch(WELL), "b": Switch(Finding(Grade.HEALTHY, "fast"))}).report()
    assert report.status is Grade.HEALTHY
    assert report.message == "all is well"
    assert report.details == {"a": "healthy", "b": "healthy: fast"}


@pytest.mark.parametrize(
    "findings, status",
    [([WELL, WEAK], Grade.DEGRADED), ([WEAK, DOWN, WELL], Grade.UNHEALTHY), ([], Grade.HEALTHY)],
)
async def test_the_whole_is_as_its_worst_part(findings, status):
    checks = {str(n): Switch(finding) for n, finding in enumerate(findings)}
    assert (await Health(checks).report()).status is status


async def test_the_message_names_what_is_not_well():
    checks = {"a": Switch(WELL), "b": Switch(WEAK), "c": Switch(DOWN)}
    report = await Health(checks).report()
    assert report.message == "b is degraded: slow; c is unhealthy: gone"


@pytest.mark.parametrize("error", [EngineUnavailable("away"), ValueError("odd")])
async def test_a_check_that_fails_is_unhealthy(error):
    report = await Health({"a": Switch(error)}).report()
    assert report.status is Grade.UNHEALTHY
    assert str(error) in report.details["a"]


async def test_a_check_that_hangs_is_unhealthy(monkeypatch):
    monkeypatch.setattr(health_module, "_CHECK_SECONDS", 0.01)

    async def hang() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    report = await Health({"a": hang}).report()
    assert report.details == {"a": "unhealthy: no answer within 0.01 s"}


async def test_however_many_ask_the_checks_are_asked_once_a_second():
    clock, check = Clock(), Switch(WELL)
    health = Health({"a": check}, clock)
    await asyncio.gather(*(health.report() for _ in range(20)))
    await health.report()
    assert check.asked == 1
    clock.now += 1.1
    await health.report()
    assert check.asked == 2


async def test_who_asks_and_leaves_takes_nothing_from_the_others():
    gate = asyncio.Event()

    async def slow() -> Finding:
        await gate.wait()
        return WELL

    health = Health({"a": slow})
    leaves, stays = (asyncio.create_task(health.report()) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    gate.set()
    assert (await stays).status is Grade.HEALTHY


async def test_ready_is_from_the_start_until_the_shutdown_unless_unhealthy():
    clock, check = Clock(), Switch(WELL)
    health = Health({"a": check}, clock)
    assert await health.why_not_ready() == "starting"
    health.serve()
    assert await health.why_not_ready() == ""
    check.finding = WEAK
    clock.now += 2
    assert await health.why_not_ready() == ""
    check.finding = DOWN
    clock.now += 2
    assert await health.why_not_ready() == "a is unhealthy: gone"
    check.finding = WELL
    clock.now += 2
    assert await health.why_not_ready() == ""
    health.shut_down()
    assert await health.why_not_ready() == "shutting down"


async def test_what_is_only_degraded_is_no_reason_not_to_be_ready():
    health = Health({"a": Switch(WEAK), "b": Switch(DOWN)}, Clock())
    health.serve()
    assert await health.why_not_ready() == "b is unhealthy: gone"


async def test_the_engine_is_healthy_while_it_answers():
    async def answers() -> int:
        return 1

    finding = await engine_check(answers)()
    assert finding.grade is Grade.HEALTHY
    assert finding.message.startswith("answers in ")


async def test_an_engine_that_answers_and_takes_no_writes_is_unhealthy():
    async def answers() -> int:
        return 1

    finding = await engine_check(answers, lambda: "NOREPLICAS Not enough good replicas")()
    assert finding == Finding(
        Grade.UNHEALTHY, "takes no writes: NOREPLICAS Not enough good replicas"
    )
    assert (await engine_check(answers, lambda: "")()).grade is Grade.HEALTHY


class Peer:
    def __init__(self, answer: str | Exception = "healthy") -> None:
        self.answer = answer
        self.asked = 0
        self.state = "closed"

    async def health(self) -> str:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer, grade, message",
    [
        ("healthy", Grade.HEALTHY, ""),
        ("", Grade.HEALTHY, ""),
        ("degraded", Grade.DEGRADED, "says that it is degraded"),
        (PeerUnavailable("p", "refused the connection"), Grade.DEGRADED, "refused the connection"),
        (PeerBreakerOpen("p", "left in peace"), Grade.DEGRADED, "left in peace"),
    ],
)
async def test_a_peer_is_as_it_says_and_never_worse_than_degraded(answer, grade, message):
    assert await peer_check(Peer(answer).health)() == Finding(grade, message)


async def test_a_peer_that_hangs_is_degraded(monkeypatch):
    monkeypatch.setattr(health_module, "_PEER_CHECK_SECONDS", 0.01)

    async def hang() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await peer_check(hang)()).grade is Grade.DEGRADED


async def test_a_peer_whose_breaker_is_open_is_not_asked():
    peer = Peer()
    peer.state = "open"
    finding = await peer_check(peer.health, lambda: peer.state)()
    assert finding == Finding(Grade.DEGRADED, "failed too often lately; its breaker is open")
    assert peer.asked == 0


async def test_a_peer_is_asked_every_few_seconds_at_most():
    clock, peer = Clock(), Peer()
    check = peer_check(peer.health, clock=clock)
    await check()
    await check()
    assert peer.asked == 1
    clock.now += 5.1
    peer.answer = "unhealthy"
    assert (await check()).grade is Grade.DEGRADED
    assert peer.asked == 2


async def test_a_peer_that_is_not_configured_is_no_trouble():
    assert await peer_check(None)() == Finding(Grade.HEALTHY, "not configured")


@pytest.mark.parametrize(
    "why, events, finding",
    [
        ("", {}, Finding(Grade.HEALTHY, "")),
        (
            "paused by system: the engine lost its data",
            {"concert": "flooded"},
            Finding(
                Grade.DEGRADED, "nobody is admitted; paused by system: the engine lost its data"
            ),
        ),
        (
            "",
            {"opera": "flooded", "concert": "prices are wrong"},
            Finding(
                Grade.DEGRADED, "nobody is admitted; paused for concert, opera: prices are wrong"
            ),
        ),
        (
            "",
            dict.fromkeys("abcdefg", "flooded"),
            Finding(
                Grade.DEGRADED, "nobody is admitted; paused for a, b, c, d, e and 2 more: flooded"
            ),
        ),
    ],
)
async def test_who_waits_for_an_operator_is_told(why, events, finding):
    assert await admission_check(lambda: why, lambda: events)() == finding


async def test_an_event_of_which_nobody_knows_what_is_left_is_named():
    assert await capacity_check(lambda: "")() == Finding(Grade.HEALTHY, "")
    why = "the capacity of concert could not be refreshed: what event?"
    assert await capacity_check(lambda: why)() == Finding(Grade.DEGRADED, why)


async def test_changes_that_wait_to_be_told_are_no_reason_to_turn_people_away():
    assert await feed_check(lambda: "")() == Finding(Grade.HEALTHY, "")
    assert await feed_check(lambda: "OSError: full")() == Finding(
        Grade.DEGRADED, "changes wait to be told (audit log, Realtime Service): OSError: full"
    )


@pytest.mark.parametrize(
    "gone, grade, says",
    [
        ([], Grade.HEALTHY, ""),
        ([1], Grade.DEGRADED, "no answer from b:1 of REDIS_LOCK_NODES"),
        (
            [0, 2],
            Grade.DEGRADED,
            (
                "no answer from a:1, c:1 of REDIS_LOCK_NODES; until a majority answers nobody is"
                " told of changes, while sales go on"
            ),
        ),
    ],
)
async def test_lock_nodes_that_do_not_answer_are_named(gone: list[int], grade: Grade, says: str):
    async def silent() -> list[int]:
        return gone

    assert await lock_check(silent, ["a:1", "b:1", "c:1"])() == Finding(grade, says)


class Lines:
    def __init__(self, **still: float) -> None:
        self.still = still

    def standing_still(self) -> dict[str, float]:
        return self.still


async def worker(lines: Any, ago: float | None, waits_for: str = "") -> Finding:
    return await worker_check(lines, lambda: ago, 60.0, lambda: waits_for)()


async def test_the_work_is_healthy_by_the_progress_seen():
    assert await worker(Lines(), 0.3) == Finding(Grade.HEALTHY, "claimed 0.3 s ago")
    assert (await worker(Lines(), None)).grade is Grade.HEALTHY


async def test_without_a_claim_for_long_it_is_not():
    assert await worker(Lines(), 61.0) == Finding(
        Grade.UNHEALTHY, "no claim has succeeded for 61 s"
    )


async def test_it_is_not_when_a_line_stands_still():
    finding = await worker(Lines(concert=90.0, opera=70.0), 0.1)
    assert finding == Finding(
        Grade.UNHEALTHY, "the line of concert (and 1 more) stands still for 90 s"
    )


async def test_waiting_for_a_peer_is_patience():
    finding = await worker(Lines(concert=90.0), 61.0, "booking service")
    assert finding == Finding(Grade.DEGRADED, "waits for the booking service")
