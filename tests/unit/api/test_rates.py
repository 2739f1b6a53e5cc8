from __future__ import annotations

from dataclasses import dataclass

from booking_worker.api.rates import Rates
from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Rate


@dataclass
class Books:
    rate: Rate
    now_ms: int


class Queue:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.rate = Rate(20.0, 10_000, 1)

    async def status(self, event_id: str):
        self.asked.append(event_id)
        if self.error is not None:
            raise self.error
        return Books(self.rate, 10_000)


async def test_the_first_hears_minus_one_and_the_next_an_estimate():
    queue = Queue()
    rates = Rates(queue.status)
    assert rates.wait_seconds("e", 10) == -1
    await rates.settle()
    assert 0 < rates.wait_seconds("e", 10) < rates.wait_seconds("e", 100)
    assert queue.asked == ["e"]


async def test_who_is_admitted_waits_no_longer_and_nobody_is_asked():
    queue = Queue()
    rates = Rates(queue.status)
    assert rates.wait_seconds("e", 0) == 0
    await rates.settle()
    assert queue.asked == []


async def test_many_who_join_ask_once():
    queue = Queue()
    rates = Rates(queue.status)
    for _ in range(100):
        rates.wait_seconds("e", 1)
        rates.wait_seconds("other", 1)
    await rates.settle()
    for _ in range(100):
        rates.wait_seconds("e", 1)
    await rates.settle()
    assert queue.asked == ["e", "other"]


async def test_what_is_stale_is_asked_again_and_answered_meanwhile(monkeypatch):
    monkeypatch.setattr("booking_worker.api.rates._FRESH_SECONDS", -1.0)
    queue = Queue()
    rates = Rates(queue.status)
    rates.wait_seconds("e", 10)
    await rates.settle()
    known = rates.wait_seconds("e", 10)
    assert known > 0
    queue.rate = Rate(40.0, 10_000, 1)
    await rates.settle()
    assert rates.wait_seconds("e", 10) < known
    await rates.settle()


async def test_without_an_answer_there_is_no_estimate_and_no_storm_of_questions():
    queue = Queue()
    rates = Rates(queue.status)
    for queue.error in (EngineUnavailable("away"), ValueError("odd")):
        rates = Rates(queue.status)
        queue.asked.clear()
        for _ in range(3):
            assert rates.wait_seconds("e", 10) == -1
            await rates.settle()
        assert queue.asked == ["e"]


async def test_it_remembers_no_more_events_than_it_may(monkeypatch):
    monkeypatch.setattr("booking_worker.api.rates._MOST_EVENTS", 3)
    rates = Rates(Queue().status)
    for n in range(10):
        rates.wait_seconds(f"event-{n}", 1)
        await rates.settle()
    assert len(rates._known) <= 3
