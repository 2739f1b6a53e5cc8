from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from booking_worker.domain.errors import EngineUnavailable, QueueFull
from booking_worker.queue.batching import Coalescer
from booking_worker.queue.lane import PATIENCE_SECONDS, Taker


class Engine:
    """Answers 10 times the question, when the test lets it; remembers what it was sent."""

    def __init__(self, *, opened: bool = True) -> None:
        self.sent: list[tuple[str, list[int]]] = []
        self.under_way = 0
        self.most_under_way: dict[str, int] = {}
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        if opened:
            self.gate.set()

    def send(self, event_id: str, questions: Sequence[int], taker: Taker, until: float) -> None:
        """As the queue does: the taker is told by somebody else's task."""
        tell_later(self._answer(event_id, questions), taker)

    async def _answer(self, event_id: str, questions: Sequence[int]) -> list[int]:
        self.sent.append((event_id, list(questions)))
        self.under_way += 1
        self.most_under_way[event_id] = max(
            self.most_under_way.get(event_id, 0), sum(e == event_id for e in self._open())
        )
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return [question * 10 for question in questions]

    def _open(self) -> list[str]:
        return [event_id for event_id, _ in self.sent[-self.under_way :]]


def tell_later(answer: Coroutine[Any, Any, Any], taker: Taker) -> None:
    """Tell the taker what comes of it."""

    def told(task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            taker.cancel()
        elif error := task.exception():
            assert isinstance(error, Exception)
            taker.set_exception(error)
        elif not taker.done():
            taker.set_result(task.result())

    asyncio.create_task(answer).add_done_callback(told)


def sent_by(answer: Callable[[Sequence[int]], Any]) -> Callable[..., None]:
    """A way to send that answers at once."""

    def send(_event_id: str, questions: Sequence[int], taker: Taker, until: float) -> None:
        taker.set_result(answer(questions))

    return send


async def turn() -> None:
    """Let everything run that is ready to."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_question_is_answered():
    engine = Engine()
    coalescer = Coalescer(engine.send)
    assert await coalescer.ask("e", 1) == 10
    assert engine.sent == [("e", [1])]


async def test_an_answer_that_is_an_error_is_raised_to_one_and_told_to_many():
    full = QueueFull("e", 1)

    coalescer: Coalescer[int, int] = Coalescer(
        sent_by(lambda questions: [full if one < 0 else one for one in questions])
    )
    one, refused = coalescer.ask("e", 1), coalescer.ask("e", -2)
    many = coalescer.ask_many("e", [3, -4])
    assert await one == 1
    with pytest.raises(QueueFull) as raised:
        await refused
    assert raised.value is full
    assert await many == [3, full]


async def test_what_is_asked_at_once_leaves_at_once():
    engine = Engine()
    coalescer = Coalescer(engine.send)
    answers = await asyncio.gather(*(coalescer.ask("e", n) for n in range(5)))
    assert answers == [0, 10, 20, 30, 40]
    assert engine.sent == [("e", [0, 1, 2, 3, 4])]


async def test_what_is_asked_meanwhile_leaves_with_the_next_call():
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send)
    first = coalescer.ask("e", 1)
    await turn()
    later = [coalescer.ask("e", n) for n in (2, 3)]
    await turn()
    assert engine.sent == [("e", [1])]
    engine.gate.set()
    assert await asyncio.gather(first, *later) == [10, 20, 30]
    assert engine.sent == [("e", [1]), ("e", [2, 3])]
    assert engine.most_under_way == {"e": 1}


async def test_no_call_has_more_than_the_most():
    engine = Engine()
    coalescer = Coalescer(engine.send, most=3)
    answers = await asyncio.gather(*(coalescer.ask("e", n) for n in range(7)))
    assert answers == [n * 10 for n in range(7)]
    assert [len(questions) for _, questions in engine.sent] == [3, 3, 1]


async def test_many_leave_behind_the_call_before_and_few_wait_for_it():
    """So the engine has work while answers are given out; it still hears them in their order."""
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send)
    asked = [coalescer.ask("e", 0)]
    await turn()
    asked += [coalescer.ask("e", n) for n in range(1, 64)]
    await turn()
    assert [len(questions) for _, questions in engine.sent] == [1]
    asked.append(coalescer.ask("e", 64))
    asked += [coalescer.ask("e", n) for n in range(65, 200)]
    await turn()
    assert [len(questions) for _, questions in engine.sent] == [1, 64]
    engine.gate.set()
    assert await asyncio.gather(*asked) == [n * 10 for n in range(200)]
    assert [n for _, questions in engine.sent for n in questions] == list(range(200))
    assert engine.most_under_way == {"e": 2}


async def test_many_that_are_asked_at_once_leave_at_once():
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send)
    asked = [coalescer.ask_many("e", range(64))]
    await turn()
    asked.append(coalescer.ask_many("e", range(64)))
    asked.append(coalescer.ask_many("e", range(64)))
    assert [len(questions) for _, questions in engine.sent] == [64]
    await turn()
    assert [len(questions) for _, questions in engine.sent] == [64, 64]
    engine.gate.set()
    assert await asyncio.gather(*asked) == [[n * 10 for n in range(64)]] * 3


async def test_each_of_many_gets_its_own_answer_though_batches_are_answered_in_another_order():
    """As when a Cluster sends one of them to another node."""
    takers: list[Taker] = []

    def send(_event_id: str, questions: Sequence[int], taker: Taker, until: float) -> None:
        takers.append(taker)

    coalescer: Coalescer[int, int] = Coalescer(send, most=64)
    asked = coalescer.ask_many("e", range(128))
    takers[1].set_result(range(64, 128))
    takers[0].set_result(range(64))
    assert await asked == list(range(128))


async def test_the_next_call_leaves_before_the_answers_are_given_out():
    told: list[int] = []
    takers: list[Taker] = []

    def send(_event_id: str, questions: Sequence[int], taker: Taker, until: float) -> None:
        told.append(sum(one.done() for one in asked))
        takers.append(taker)

    coalescer: Coalescer[int, int] = Coalescer(send)
    asked = [coalescer.ask("e", 1)]
    await turn()
    asked.append(coalescer.ask("e", 2))
    takers[0].set_result([1])
    assert told == [0, 0]
    assert asked[0].result() == 1


async def test_what_cannot_be_sent_is_told():
    def broken(_event_id: str, questions: Sequence[int], taker: Taker, until: float) -> None:
        raise ValueError("odd")

    coalescer: Coalescer[int, int] = Coalescer(broken)
    with pytest.raises(ValueError, match="odd"):
        await coalescer.ask("e", 1)
    await coalescer.drain()


async def test_events_do_not_wait_for_each_other():
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send)
    asked = [coalescer.ask("one", 1), coalescer.ask("two", 2)]
    await turn()
    assert engine.sent == [("one", [1]), ("two", [2])]
    engine.gate.set()
    assert await asyncio.gather(*asked) == [10, 20]


async def test_many_questions_have_one_answer_in_their_order():
    engine = Engine()
    coalescer = Coalescer(engine.send, most=4)
    single, many, other = await asyncio.gather(
        coalescer.ask("e", 1),
        coalescer.ask_many("e", range(10)),
        coalescer.ask_many("e", [7, 8]),
    )
    assert single == 10
    assert many == [n * 10 for n in range(10)]
    assert other == [70, 80]
    assert max(len(questions) for _, questions in engine.sent) == 4


async def test_no_questions_have_no_answers_at_once():
    engine = Engine()
    coalescer = Coalescer(engine.send)
    assert await coalescer.ask_many("e", []) == []
    await coalescer.drain()
    assert engine.sent == []


async def test_an_error_goes_to_all_of_its_call_and_to_no_other():
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send)
    first = [coalescer.ask("e", 1), coalescer.ask_many("e", [2, 3])]
    await turn()
    second = coalescer.ask("e", 4)
    engine.error = ValueError("odd")
    engine.gate.set()
    outcomes = await asyncio.gather(*first, second, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["odd", "odd", "odd"]
    assert len(engine.sent) == 2
    engine.error = None
    assert await coalescer.ask("e", 5) == 50


async def test_an_engine_that_is_away_is_told_to_those_who_came_meanwhile_too():
    """Else they would wait for two calls that get no answer, one after the other."""
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send, most=2)
    engine.error = EngineUnavailable("away")
    asked = [coalescer.ask("e", 1), coalescer.ask("e", 2), coalescer.ask("e", 3)]
    await turn()
    asked.append(coalescer.ask("e", 4))
    many = coalescer.ask_many("e", range(9))
    engine.gate.set()
    for outcome in await asyncio.gather(*asked, many, return_exceptions=True):
        assert isinstance(outcome, EngineUnavailable)
    assert engine.sent == [("e", [1, 2])]


async def test_the_wait_for_the_batch_before_counts():
    """Else the answers to two slow calls, one after the other, would take as long as both."""
    takers: list[Taker] = []

    def send(_event_id: str, questions: Sequence[int], taker: Taker, until: float) -> None:
        takers.append(taker)

    coalescer: Coalescer[int, int] = Coalescer(send)
    first = coalescer.ask("e", 1)
    await turn()
    second = coalescer.ask("e", 2)
    coalescer._lines["e"].asked_at[0] -= PATIENCE_SECONDS
    takers[0].set_result([1])
    assert await first == 1
    with pytest.raises(EngineUnavailable, match=r"within 1\.8 s"):
        await second
    assert takers[1].done()


async def test_answers_that_are_too_few_are_an_error_for_all():
    coalescer: Coalescer[int, int] = Coalescer(sent_by(lambda questions: questions[1:]))
    outcomes = await asyncio.gather(
        coalescer.ask("e", 1), coalescer.ask("e", 2), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 2


async def test_who_leaves_before_the_call_is_not_in_it():
    engine = Engine()
    coalescer = Coalescer(engine.send)
    gone, gone_many = coalescer.ask("e", 1), coalescer.ask_many("e", [2, 3])
    stays = coalescer.ask("e", 4)
    gone.cancel()
    gone_many.cancel()
    assert await stays == 40
    assert engine.sent == [("e", [4])]


async def test_when_all_have_left_nothing_is_sent():
    engine = Engine()
    coalescer = Coalescer(engine.send)
    coalescer.ask("e", 1).cancel()
    await coalescer.drain()
    assert engine.sent == []


async def test_who_leaves_during_the_call_takes_nobody_along():
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send)

    async def caller(question: int) -> int:
        return await coalescer.ask("e", question)

    callers = [asyncio.create_task(caller(n)) for n in (1, 2)]
    many = coalescer.ask_many("e", [3, 4])
    await turn()
    callers[0].cancel()
    many.cancel()
    engine.gate.set()
    assert await callers[1] == 20
    with pytest.raises(asyncio.CancelledError):
        await callers[0]


async def test_a_coalescer_at_rest_holds_nothing():
    engine = Engine()
    coalescer = Coalescer(engine.send)
    await asyncio.gather(*(coalescer.ask(f"event-{n}", n) for n in range(20)))
    await coalescer.drain()
    assert coalescer._lines == {}
    assert len(asyncio.all_tasks()) == 1


async def test_draining_waits_for_what_was_asked():
    engine = Engine(opened=False)
    coalescer = Coalescer(engine.send)
    asked = coalescer.ask("e", 1)
    draining = asyncio.create_task(coalescer.drain())
    await turn()
    assert not draining.done()
    engine.gate.set()
    await draining
    assert asked.result() == 10


def test_a_loop_that_is_closed_leaves_nobody_waiting():
    futures: list[asyncio.Future[Any]] = []

    async def leave_in_the_middle() -> None:
        engine = Engine(opened=False)
        coalescer = Coalescer(engine.send, most=1)
        futures.extend([coalescer.ask("e", 1), coalescer.ask("e", 2)])
        futures.append(coalescer.ask_many("e", [3]))
        await turn()

    asyncio.run(leave_in_the_middle())
    assert [future.cancelled() for future in futures] == [True, True, True]
    futures.clear()
    gc.collect()
