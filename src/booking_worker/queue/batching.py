"""Questions that arrive together go to the engine together.

While a call for an event is on its way, whatever else is asked about that event gathers and
leaves with the next one: alone when the service is quiet, by hundreds under load, without any
waiting time of its own. Once many have gathered, they leave behind the first call, and the next
call leaves before the answers of one are given out: so the engine and the event loop, on a core
each, work at the same time and not by turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from booking_worker.domain.errors import BookingWorkerError, EngineUnavailable
from booking_worker.queue.lane import PATIENCE_SECONDS, Taker, unavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")

MOST_PER_CALL: Final = 200
"""With more, all of a few hundred callers would be either in the engine or in the event loop."""
_MANY: Final = 64
_MOST_UNDER_WAY: Final = 2


class Coalescer(Generic[Question, Answer]):
    """Collects questions by event and asks them in batches of at most ``most``.

    ``send(event_id, questions, taker, until)`` has the taker told one answer for each question,
    in order (``Answer``, or an error as a value), or an exception for all; after ``until``, by
    the event loop's clock, it is told nothing more. At most two of these are under way for an
    event, in the order of asking; events don't wait for each other.
    """

    def __init__(
        self,
        send: Callable[[str, Sequence[Question], Taker, float], None],
        most: int = MOST_PER_CALL,
    ) -> None:
        self._send = send
        self._most = most
        self._lines: dict[str, _Line[Question, Answer]] = {}
        self._at_rest = asyncio.Event()

    def ask(self, event_id: str, question: Question) -> asyncio.Future[Answer]:
        """The answer to one question, later.

        Must be called on the event loop. Cancelling the future takes the question back if it
        has not left yet, and disturbs nobody else. It raises an answer that is an error, and
        the exception that the taker was told.
        """
        line = self._lines.get(event_id)
        if line is None:
            line = self._open(event_id)
        future = line.loop.create_future()
        line.questions.append(question)
        line.takers.append(future)
        line.asked_at.append(line.loop.time())
        if len(line.takers) >= _MANY and line.under_way < _MOST_UNDER_WAY:
            line.go_on()
        return future

    def ask_many(
        self, event_id: str, questions: Sequence[Question]
    ) -> asyncio.Future[list[Answer | BookingWorkerError]]:
        """The answers to many questions, errors too, in order, later; otherwise as :meth:`ask`.

        They may leave in several batches; when one of these fails, all of them are answered
        with its error, although others may have taken effect.
        """
        line = self._lines.get(event_id)
        if line is None:
            line = self._open(event_id)
        group: _Group[Answer] = _Group(line.loop.create_future(), len(questions))
        if questions:
            line.questions += questions
            line.takers += group.takers()
            line.asked_at += [line.loop.time()] * len(questions)
            if len(line.takers) >= _MANY and line.under_way < _MOST_UNDER_WAY:
                line.go_on()
        else:
            group.future.set_result([])
        return group.future

    async def drain(self) -> None:
        """Return once everything asked so far has been answered."""
        while self._lines:
            self._at_rest.clear()
            await self._at_rest.wait()

    def _open(self, event_id: str) -> _Line[Question, Answer]:
        line: _Line[Question, Answer] = _Line(
            asyncio.get_running_loop(),
            partial(self._send, event_id),
            self._most,
            partial(self._close, event_id),
        )
        self._lines[event_id] = line
        # After the callers that are ready now: they are in its first batch.
        line.loop.call_soon(line.go_on)
        return line

    def _close(self, event_id: str, line: _Line[Question, Answer]) -> None:
        if self._lines.get(event_id) is line:
            del self._lines[event_id]
            if not self._lines:
                self._at_rest.set()


class _Line(Generic[Question, Answer]):
    """What gathers for one event."""

    __slots__ = ("_ended", "_most", "_send", "asked_at", "loop", "questions", "takers", "under_way")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[Sequence[Question], Taker, float], None],
        most: int,
        ended: Callable[[_Line[Question, Answer]], None],
    ) -> None:
        """``ended`` hears of it when nobody waits any more."""
        self._send = send
        self._most = most
        self._ended = ended
        self.loop = loop
        self.questions: list[Question] = []
        self.takers: _Takers[Answer] = []
        """Who waits for the answer to the question at the same place."""
        self.asked_at: list[float] = []
        """When each of them asked, by the event loop's clock."""
        self.under_way = 0
        """Calls that are not answered yet."""

    def go_on(self) -> None:
        """Send what may leave now: all when no call is under way, else once it is much."""
        while self.takers and (
            not self.under_way or (self.under_way < _MOST_UNDER_WAY and len(self.takers) >= _MANY)
        ):
            self._leave()
        if not self.takers and not self.under_way:
            self._ended(self)

    def _leave(self) -> None:
        questions, takers, asked_at = self._next_batch()
        if not questions:
            return
        self.under_way += 1
        # Who asked first may have waited already, for the calls before.
        until = asked_at + PATIENCE_SECONDS
        batch: _Batch[Answer] = _Batch(self, takers, until)
        try:
            self._send(questions, batch, until)
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            batch.set_exception(error)

    def _next_batch(self) -> tuple[list[Question], _Takers[Answer], float]:
        """The first so many, without those whose callers have left, and when the first asked."""
        most = self._most
        questions, self.questions = self.questions[:most], self.questions[most:]
        takers, self.takers = self.takers[:most], self.takers[most:]
        asked_at, self.asked_at = self.asked_at[0], self.asked_at[most:]
        if gone := [at for at, taker in enumerate(takers) if taker.done()]:
            for at in reversed(gone):
                del questions[at], takers[at]
        return questions, takers, asked_at

    def give_up(self) -> _Takers[Answer]:
        """Everyone who waits; nobody does afterwards."""
        takers, self.takers, self.questions, self.asked_at = self.takers, [], [], []
        return takers


class _Batch(Generic[Answer]):
    """Those who wait for the answers of one call: each is told its own."""

    __slots__ = ("_line", "_over", "_takers", "_timer")

    def __init__(self, line: _Line[Any, Answer], takers: _Takers[Answer], until: float) -> None:
        self._line = line
        self._takers = takers
        self._over = False
        self._timer = line.loop.call_at(until, self._too_late)

    def done(self) -> bool:
        return self._over

    def set_result(self, result: Sequence[Answer | BookingWorkerError], /) -> None:
        if len(result) != len(self._takers):
            self.set_exception(ValueError(f"{len(result)} answers to {len(self._takers)}"))
            return
        self._end()
        # The next call leaves first: the engine works on it while these are told.
        self._line.go_on()
        _tell(self._takers, result)

    def set_exception(self, exception: Exception, /) -> None:
        self._end()
        if isinstance(exception, EngineUnavailable):
            # Who came while this call waited in vain must not wait as long once more.
            _fail(self._line.give_up(), exception)
        _fail(self._takers, exception)
        self._line.go_on()

    def cancel(self) -> bool:
        # The event loop is being closed: nobody is left who could be answered.
        self._end()
        for taker in (*self._takers, *self._line.give_up()):
            taker.cancel()
        self._line.go_on()
        return True

    def _too_late(self) -> None:
        self.set_exception(unavailable(f"no answer within {PATIENCE_SECONDS:g} s"))

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()
        self._line.under_way -= 1


class _Group(Generic[Answer]):
    """Gathers the answers to many questions for one future."""

    __slots__ = ("_answers", "_missing", "future")

    def __init__(
        self, future: asyncio.Future[list[Answer | BookingWorkerError]], wanted: int
    ) -> None:
        self.future = future
        self._answers: list[Any] = [None] * wanted
        self._missing = wanted

    def takers(self) -> list[_Share[Answer]]:
        """Who takes each answer."""
        return [_Share(self, at) for at in range(self._missing)]

    def keep(self, at: int, answer: Answer | BookingWorkerError) -> None:
        self._answers[at] = answer
        self._missing -= 1
        if not self._missing:
            self.future.set_result(self._answers)


class _Share(Generic[Answer]):
    """Takes one answer for a group: a batch may be answered before the one that left first."""

    __slots__ = ("_at", "_group")

    def __init__(self, group: _Group[Answer], at: int) -> None:
        self._group = group
        self._at = at

    def done(self) -> bool:
        return self._group.future.done()

    def keep(self, answer: Answer | BookingWorkerError) -> None:
        self._group.keep(self._at, answer)

    def set_exception(self, error: Exception) -> None:
        self._group.future.set_exception(error)

    def cancel(self) -> bool:
        return self._group.future.cancel()


_Takers: TypeAlias = list[asyncio.Future[Answer] | _Share[Answer]]


def _tell(takers: _Takers[Answer], answers: Sequence[Answer | BookingWorkerError]) -> None:
    for taker, answer in zip(takers, answers, strict=True):
        if taker.done():
            continue
        if isinstance(taker, _Share):
            taker.keep(answer)
        elif isinstance(answer, BookingWorkerError):
            taker.set_exception(answer)
        else:
            taker.set_result(answer)


def _fail(takers: _Takers[Answer], error: Exception) -> None:
    for taker in takers:
        if not taker.done():
            taker.set_exception(error)
