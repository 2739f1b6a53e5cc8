"""Questions that arrive together go to the engine together.

While one call for an event is on its way, whatever else is asked about that event gathers and
leaves with the next one: alone when the service is quiet, by hundreds under load, without any
waiting time of its own. A hundred that have gathered don't wait for the answer: they leave at
once, as the second on its way, and the engine works on them while the first hears its answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from booking_worker.domain.errors import BookingWorkerError, EngineUnavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")

MOST_PER_FLUSH: Final = 500
ENOUGH_FOR_A_SECOND: Final = 100


class Coalescer(Generic[Question, Answer]):
    """Collects questions by event and asks them in batches of at most ``most``.

    ``send`` gets an event id and the questions and gives one answer for each, in order. At most
    two calls of it are under way per event; events don't wait for each other.
    """

    def __init__(
        self,
        send: Callable[[str, Sequence[Question]], Awaitable[Sequence[Answer | BookingWorkerError]]],
        most: int = MOST_PER_FLUSH,
    ) -> None:
        self._send = send
        self._most = most
        self._lines: dict[str, _Line[Question, Answer]] = {}

    def ask(self, event_id: str, question: Question) -> asyncio.Future[Answer]:
        """The answer to one question, later.

        Must be called on the event loop. Cancelling the future takes the question back if it
        has not left yet, and disturbs nobody else. It raises an answer that is an error, and
        what ``send`` raised.
        """
        line = self._lines.get(event_id) or self._open(event_id)
        future = line.loop.create_future()
        line.questions.append(question)
        line.takers.append(future)
        if line.wants_a_second():
            self._carry_from(event_id, line)
        return future

    def ask_many(
        self, event_id: str, questions: Sequence[Question]
    ) -> asyncio.Future[list[Answer | BookingWorkerError]]:
        """The answers to many questions, errors too, in order, later; otherwise as :meth:`ask`.

        They may leave in several batches; when one of these fails, all of them are answered
        with its error, although others may have taken effect.
        """
        line = self._lines.get(event_id) or self._open(event_id)
        group: _Group[Answer] = _Group(line.loop.create_future(), len(questions))
        line.questions += questions
        line.takers += [_Seat(group, at) for at in range(len(questions))]
        if not questions:
            group.future.set_result([])
        if line.wants_a_second():
            self._carry_from(event_id, line)
        return group.future

    async def drain(self) -> None:
        """Return once everything asked so far has been answered."""
        while self._lines:
            await asyncio.wait([task for line in self._lines.values() for task in line.carriers])

    def _open(self, event_id: str) -> _Line[Question, Answer]:
        line: _Line[Question, Answer] = _Line(asyncio.get_running_loop())
        self._lines[event_id] = line
        # It starts after the callers that are ready now: they are in its first batch.
        self._carry_from(event_id, line)
        return line

    def _carry_from(self, event_id: str, line: _Line[Question, Answer]) -> None:
        line.carriers.add(line.loop.create_task(self._carry(event_id, line)))

    async def _carry(self, event_id: str, line: _Line[Question, Answer]) -> None:
        """Take batch after batch, until nobody waits or few do and another is to come back."""
        me = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            while line.is_due():
                questions, takers = line.next_batch(self._most)
                if questions:
                    await self._ask(event_id, line, questions, takers)
        finally:
            line.carriers.discard(me)
            if not line.carriers:
                del self._lines[event_id]

    async def _ask(
        self,
        event_id: str,
        line: _Line[Question, Answer],
        questions: Sequence[Question],
        takers: _Takers[Answer],
    ) -> None:
        line.under_way += 1
        try:
            _tell(takers, await self._send(event_id, questions))
        except EngineUnavailable as error:
            # Who came while this call waited in vain must not wait as long once more.
            _fail([*takers, *line.leave()], error)
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            _fail(takers, error)
        except asyncio.CancelledError:
            # The event loop is being closed: nobody is left who could be answered.
            for taker in (*takers, *line.leave()):
                taker.cancel()
            raise
        finally:
            line.under_way -= 1


class _Line(Generic[Question, Answer]):
    """What gathers for one event."""

    __slots__ = ("carriers", "loop", "questions", "takers", "under_way")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.questions: list[Question] = []
        self.takers: _Takers[Answer] = []
        """Who waits for the answer to the question at the same place."""
        self.carriers: set[asyncio.Task[None]] = set()
        self.under_way = 0

    def wants_a_second(self) -> bool:
        """Whether so many wait that they are not to wait for the one that is under way."""
        return len(self.takers) >= ENOUGH_FOR_A_SECOND and self.under_way == len(self.carriers) == 1

    def is_due(self) -> bool:
        """Whether one that has come back is to leave again."""
        waiting = len(self.takers)
        return waiting >= ENOUGH_FOR_A_SECOND or (waiting > 0 and len(self.carriers) == 1)

    def next_batch(self, most: int) -> tuple[list[Question], _Takers[Answer]]:
        """The first so many, without those whose callers have left; possibly none."""
        questions, self.questions = self.questions[:most], self.questions[most:]
        takers, self.takers = self.takers[:most], self.takers[most:]
        if gone := [at for at, taker in enumerate(takers) if taker.done()]:
            for at in reversed(gone):
                del questions[at], takers[at]
        return questions, takers

    def leave(self) -> _Takers[Answer]:
        """Everyone who waits; nobody does afterwards."""
        takers, self.takers, self.questions = self.takers, [], []
        return takers


class _Group(Generic[Answer]):
    """Collects the answers to many questions for one future."""

    __slots__ = ("answers", "future", "missing")

    def __init__(
        self, future: asyncio.Future[list[Answer | BookingWorkerError]], wanted: int
    ) -> None:
        self.future = future
        self.answers: list[Any] = [None] * wanted
        self.missing = wanted


class _Seat(Generic[Answer]):
    """Takes one answer for a group: two batches may come back in either order."""

    __slots__ = ("_at", "_group")

    def __init__(self, group: _Group[Answer], at: int) -> None:
        self._group = group
        self._at = at

    def done(self) -> bool:
        return self._group.future.done()

    def set_result(self, answer: Answer | BookingWorkerError) -> None:
        group = self._group
        group.answers[self._at] = answer
        group.missing -= 1
        if not group.missing:
            group.future.set_result(group.answers)

    def set_exception(self, error: Exception) -> None:
        self._group.future.set_exception(error)

    def cancel(self) -> bool:
        return self._group.future.cancel()


_Takers: TypeAlias = list[asyncio.Future[Answer] | _Seat[Answer]]


def _tell(takers: _Takers[Answer], answers: Sequence[Answer | BookingWorkerError]) -> None:
    for taker, answer in zip(takers, answers, strict=True):
        if taker.done():
            continue
        if isinstance(taker, _Seat):
            taker.set_result(answer)
        elif isinstance(answer, BookingWorkerError):
            taker.set_exception(answer)
        else:
            taker.set_result(answer)


def _fail(takers: _Takers[Answer], error: Exception) -> None:
    for taker in takers:
        if not taker.done():
            taker.set_exception(error)
