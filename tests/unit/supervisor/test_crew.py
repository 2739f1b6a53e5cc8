from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from booking_worker.supervisor import crew
from booking_worker.supervisor.crew import MOST_PAUSE_SECONDS, NotStarted, pause_after
from tests.support.wait import wait_until
from tests.unit.supervisor.conftest import SmallCrew


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_pause_grows_with_each_end_that_came_soon_and_not_for_ever():
    pauses = [pause_after(failures) for failures in range(1, 12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == MOST_PAUSE_SECONDS
    assert pause_after(10**6) == MOST_PAUSE_SECONDS


async def test_all_are_ready_after_the_start_and_hear_so(small_crew: SmallCrew):
    await small_crew.start({}, {}, {})
    assert len(set(small_crew.crew.pids)) == 3
    for number in (1, 2, 3):
        await small_crew.all_well(number)
        assert small_crew.news(number)["of"] == 3
    assert small_crew.metric("booking_worker_processes") == 3
    # Their metrics come behind the word that they are ready.
    await wait_until(lambda: small_crew.metric("lives_total") == 3)
    assert small_crew.metric("booking_worker_worker_slots") == 15


async def test_one_that_dies_is_missed_by_the_others_started_again_and_stays_in_the_sums(
    small_crew: SmallCrew,
):
    await small_crew.start({}, {})
    await small_crew.all_well(1)
    await wait_until(lambda: small_crew.metric("lives_total") == 2)
    small_crew.end_while(2, there=True)
    died = await small_crew.kill(2)
    assert await small_crew.heard(1, "process 2") == (
        "process 2 ended with SIGKILL, and starts again after 0.1 s"
    )
    assert small_crew.metric("lives_total") == 2
    assert small_crew.metric("booking_worker_worker_slots") == 5
    small_crew.end_while(2, there=False)
    await wait_until(lambda: small_crew.metric("lives_total") == 3)
    assert died not in small_crew.crew.pids
    assert small_crew.metric("booking_worker_worker_slots") == 10
    assert small_crew.metric("booking_worker_process_restarts_total") >= 1


async def test_one_that_ends_again_and_again_is_given_more_time_and_it_is_said_so(
    small_crew: SmallCrew,
):
    await small_crew.start({}, {})
    small_crew.end_while(2, there=True)
    await small_crew.kill(2)
    assert await small_crew.heard(1, "4 times in a row") == (
        "process 2 ended 4 times in a row, lastly with exit code 3, and starts again after 0.8 s"
    )
    assert small_crew.news(1)["ready"] == 1
    small_crew.end_while(2, there=False)
    # It runs, but for how long?
    assert "in a row, lastly with exit code 3, and runs again" in await small_crew.heard(
        1, "runs again"
    )
    assert small_crew.news(1)["ready"] == 2


async def test_once_it_has_lived_for_long_all_is_well_and_forgotten(
    small_crew: SmallCrew, monkeypatch: pytest.MonkeyPatch
):
    await small_crew.start({}, {})
    small_crew.end_while(2, there=True)
    await small_crew.kill(2)
    await small_crew.heard(1, "3 times in a row")
    small_crew.end_while(2, there=False)
    await small_crew.heard(1, "runs again")
    monkeypatch.setattr(crew, "STABLE_SECONDS", 0.0)
    await small_crew.all_well(1)
    await small_crew.kill(2)
    assert "starts again after 0.1 s" in await small_crew.heard(1, "process 2 ended with SIGKILL")


async def test_what_one_says_of_itself_the_others_hear(small_crew: SmallCrew):
    await small_crew.start({}, {"not_ready": "the engine is gone"})
    assert await small_crew.heard(1, "process 2 is not") == (
        "process 2 is not ready: the engine is gone"
    )
    assert small_crew.news(1)["ready"] == 1
    assert small_crew.metric("booking_worker_processes") == 1


async def test_one_that_says_nothing_any_more_is_missed(
    small_crew: SmallCrew, monkeypatch: pytest.MonkeyPatch
):
    await small_crew.start({}, {})
    await small_crew.all_well(1)
    monkeypatch.setattr(crew, "SILENT_SECONDS", 0.0)
    assert "process 2 has been silent for" in await small_crew.heard(1, "process 2")
    assert small_crew.news(1)["ready"] == 0


async def test_one_that_hangs_is_killed_and_started_again(
    small_crew: SmallCrew, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(crew, "HUNG_SECONDS", 1.5)
    await small_crew.start({"speaks": True}, {"speaks": True})
    hung = small_crew.crew.pids[1]
    os.kill(hung, signal.SIGSTOP)
    assert "ended with SIGKILL" in await small_crew.heard(1, "process 2 ended")
    assert hung not in small_crew.crew.pids
    await small_crew.all_well(1)


async def test_nobody_is_killed_because_the_supervisor_itself_was_held_up(
    small_crew: SmallCrew, monkeypatch: pytest.MonkeyPatch
):
    await small_crew.start({"speaks": True}, {"speaks": True})
    monkeypatch.setattr(crew, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(crew, "HUNG_SECONDS", 1.5)
    pids = small_crew.crew.pids
    looks: list[float] = []
    kill_hung = small_crew.crew._kill_hung

    def look(awake_since: float) -> None:
        # As if it looked before it heard what came in while it was held up.
        if not looks:
            for seat in small_crew.crew._seats:
                seat.child.heard_at -= 3
        looks.append(awake_since)
        kill_hung(awake_since)

    monkeypatch.setattr(small_crew.crew, "_kill_hung", look)
    time.sleep(3)
    await wait_until(lambda: len(looks) > 1)
    assert small_crew.crew.pids == pids
    assert small_crew.metric("booking_worker_process_restarts_total") == 0


async def test_one_that_was_told_to_end_by_another_is_replaced_at_once(small_crew: SmallCrew):
    await small_crew.start({"ends_with": 0}, {})
    pid = small_crew.crew.pids[0]
    os.kill(pid, signal.SIGTERM)
    await wait_until(lambda: small_crew.metric("lives_total") == 3)
    await small_crew.all_well(1)
    assert pid not in small_crew.crew.pids


async def test_what_is_wrong_from_the_start_is_an_end_of_it_all(small_crew: SmallCrew):
    with pytest.raises(NotStarted) as caught:
        await small_crew.start({}, ends_at_once=True)
    assert caught.value.code == 3
    await small_crew.crew.stop()
    assert small_crew.crew.pids == []


async def test_also_when_it_is_not_the_first(small_crew: SmallCrew):
    with pytest.raises(NotStarted, match="process 2 ended with exit code 3"):
        await small_crew.start({}, {}, ends_at_once=True)
    await small_crew.crew.stop()
    assert small_crew.crew.pids == []


async def test_a_program_that_is_not_there_is_an_end_of_it_all(tmp_path):
    missing = crew.Crew([{"number": 1}], 1, (str(tmp_path / "missing"),))
    with pytest.raises(NotStarted):
        await missing.start()
    await missing.stop()


async def test_a_stop_ends_all_and_starts_none(small_crew: SmallCrew):
    await small_crew.start({}, {})
    pids = small_crew.crew.pids
    await asyncio.gather(small_crew.crew.stop(), small_crew.crew.stop())
    assert all(map(is_gone, pids))
    assert small_crew.crew.pids == []
    assert small_crew.crew.clean


async def test_a_stop_does_not_wait_for_one_that_is_to_start_later(small_crew: SmallCrew):
    await small_crew.start({}, {})
    small_crew.end_while(2, there=True)
    await small_crew.kill(2)
    await small_crew.heard(1, "3 times in a row")
    await small_crew.crew.stop()
    assert small_crew.crew.pids == []


async def test_one_that_is_asked_to_stop_while_it_starts_the_first_starts_no_more(
    small_crew: SmallCrew,
):
    starting = asyncio.create_task(small_crew.start({}, {}))
    await wait_until(lambda: hasattr(small_crew, "crew") and small_crew.crew.pids)
    small_crew.crew.ask_to_stop()
    await starting
    assert len(small_crew.crew.pids) <= 1
    await small_crew.crew.stop()
    assert small_crew.crew.pids == []


async def test_one_that_does_not_stop_in_its_time_is_killed_and_it_is_said_so(
    small_crew: SmallCrew,
):
    await small_crew.start({}, {"deaf": True}, grace_seconds=0.3)
    await small_crew.all_well(2)
    pids = small_crew.crew.pids
    await small_crew.crew.stop()
    assert all(map(is_gone, pids))
    assert not small_crew.crew.clean
