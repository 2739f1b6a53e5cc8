from __future__ import annotations

import pytest

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.worker.rounds import Rounds


class Events:
    """A list of events, and a clock."""

    def __init__(self, number: int) -> None:
        self.names = [f"e{at:03}" for at in range(number)]
        self.away = False
        self.now = 50.0

    async def __call__(self) -> list[str]:
        if self.away:
            raise EngineUnavailable("away")
        return list(self.names)

    def rounds(self, most: int = 10) -> Rounds:
        return Rounds(self, most, clock=lambda: self.now)


async def test_the_first_turn_is_for_all():
    events = Events(40)
    assert await events.rounds().turn() == events.names


async def test_turns_come_once_a_second():
    events = Events(3)
    rounds = events.rounds()
    await rounds.turn()
    assert await rounds.turn() == ()
    assert rounds.seconds_until_due == pytest.approx(1.0)
    events.now += 1
    assert await rounds.turn() == events.names


async def test_of_many_events_each_gets_its_turn():
    events = Events(25)
    rounds = events.rounds(most=10)
    await rounds.turn()
    turns = []
    for _ in range(3):
        events.now += 1
        turns.append(list(await rounds.turn()))
    assert [len(turn) for turn in turns] == [10, 10, 5]
    assert sorted(name for turn in turns for name in turn) == events.names
    events.now += 1
    assert await rounds.turn() == turns[0]


async def test_new_events_are_looked_at_in_the_next_turn():
    events = Events(25)
    rounds = events.rounds(most=10)
    await rounds.turn()
    events.names.insert(0, "new")
    events.now += 1
    assert (await rounds.turn())[0] == "new"
    events.now += 1
    assert "new" not in await rounds.turn()


async def test_a_restart_makes_all_events_due_at_once():
    events = Events(25)
    rounds = events.rounds(most=10)
    await rounds.turn()
    rounds.restart()
    assert rounds.seconds_until_due == 0
    assert await rounds.turn() == events.names


async def test_a_restart_while_the_list_is_read_is_not_forgotten():
    events = Events(25)
    rounds = events.rounds(most=10)
    await rounds.turn()
    events.now += 1

    async def reading() -> list[str]:
        rounds.restart()
        return events.names

    rounds._events = reading
    await rounds.turn()
    rounds._events = events
    assert await rounds.turn() == events.names


async def test_a_turn_that_failed_is_taken_again():
    events = Events(25)
    rounds = events.rounds(most=10)
    events.away = True
    with pytest.raises(EngineUnavailable):
        await rounds.turn()
    events.away = False
    assert await rounds.turn() == events.names


async def test_events_that_are_gone_are_forgotten():
    events = Events(25)
    rounds = events.rounds(most=10)
    await rounds.turn()
    del events.names[:20]
    events.now += 1
    assert await rounds.turn() == events.names
