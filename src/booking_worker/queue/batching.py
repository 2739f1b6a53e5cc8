"""Questions that arrive together go to the engine together.

While one call for an event is on its way, whatever else is asked about that event gathers and
leaves with the next one: alone when the service is quiet, by hundreds under load, without any
waiting time of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from booking_worker.domain.errors import BookingWorkerError, EngineUnavailable
from booking_worker.queue.runner import PATIENCE_SECONDS, unavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")

MOST_PER_FLUSH = 500


class Coalescer(Generic[Question, Answer]):
    """Collects questions by event and asks them in batches of at most ``most``.

    ``send`` gets an event id and the questions and gives one answer for each, in order. One
    call of it is under way per event at a time; events don't wait for each other.
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
        line = self._lines.get(event_id)
        if line is None:
            line = self._open(event_id)
        future = line.loop.create_future()
        line.questions.append(question)
        line.takers.append(future)
        line.asked_at.append(line.loop.time())
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
            line.takers += [group] * len(questions)
            line.asked_at += [line.loop.time()] * len(questions)
        else:
            group.future.set_result([])
        return group.future

    async def drain(self) -> None:
        """Return once everything asked so far has been answered."""
        while self._lines:
            await asyncio.wait([line.flushing for line in self._lines.values()])

    def _open(self, event_id: str) -> _Line[Question, Answer]:
        loop = asyncio.get_running_loop()
        line: _Line[Question, Answer] = _Line(loop)
        self._lines[event_id] = line
        # It starts after the callers that are ready now: they are in its first batch.
        line.flushing = loop.create_task(self._flush(event_id, line))
        return line

    async def _flush(self, event_id: str, line: _Line[Question, Answer]) -> None:
        """Send batch after batch until nobody waits; then the line is forgotten."""
        takers: _Takers[Answer] = []
        try:
            while line.takers:
                questions, takers, asked_at = line.next_batch(self._most)
                if not questions:
                    continue
                try:
                    # Who asked first may have waited already, for the batch before.
                    async with asyncio.timeout_at(asked_at + PATIENCE_SECONDS):
                        _tell(takers, await self._send(event_id, questions))
                except (EngineUnavailable, TimeoutError) as error:
                    # Who came while this call waited in vain must not wait as long once more.
                    _fail([*takers, *line.leave()], _unavailable(error))
                except Exception as error:  # noqa: BLE001 - handed to those who asked
                    _fail(takers, error)
        except asyncio.CancelledError:
            # The event loop is being closed: nobody is left who could be answered.
            for taker in (*takers, *line.leave()):
                taker.cancel()
            raise
        finally:
            del self._lines[event_id]


class _Line(Generic[Question, Answer]):
    """What gathers for one event."""

    __slots__ = ("asked_at", "flushing", "loop", "questions", "takers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.questions: list[Question] = []
        self.takers: _Takers[Answer] = []
        """Who waits for the answer to the question at the same place."""
        self.asked_at: list[float] = []
        """When each of them asked, by the event loop's clock."""
        self.flushing: asyncio.Task[None]

    def next_batch(self, most: int) -> tuple[list[Question], _Takers[Answer], float]:
        """The first so many, without those whose callers have left, and when the first asked."""
        questions, self.questions = self.questions[:most], self.questions[most:]
        takers, self.takers = self.takers[:most], self.takers[most:]
        asked_at, self.asked_at = self.asked_at[0], self.asked_at[most:]
        if gone := [at for at, taker in enumerate(takers) if taker.done()]:
            for at in reversed(gone):
                del questions[at], takers[at]
        return questions, takers, asked_at

    def leave(self) -> _Takers[Answer]:
        """Everyone who waits; nobody does afterwards."""
        takers, self.takers, self.questions, self.asked_at = self.takers, [], [], []
        return takers


class _Group(Generic[Answer]):
    """Takes the answers of many questions for one future."""

    __slots__ = ("_answers", "_wanted", "future")

    def __init__(
        self, future: asyncio.Future[list[Answer | BookingWorkerError]], wanted: int
    ) -> None:
        self.future = future
        self._answers: list[Answer | BookingWorkerError] = []
        self._wanted = wanted

    def done(self) -> bool:
        return self.future.done()

    def add(self, answer: Answer | BookingWorkerError) -> None:
        # Answers come in the order of the questions: a line is first in, first out.
        self._answers.append(answer)
        if len(self._answers) == self._wanted:
            self.future.set_result(self._answers)

    def set_exception(self, error: Exception) -> None:
        self.future.set_exception(error)

    def cancel(self) -> bool:
        return self.future.cancel()


_Takers: TypeAlias = list[asyncio.Future[Answer] | _Group[Answer]]


def _unavailable(error: EngineUnavailable | TimeoutError) -> EngineUnavailable:
    if isinstance(error, EngineUnavailable):
        return error
    return unavailable(f"no answer within {PATIENCE_SECONDS:g} s")


def _tell(takers: _Takers[Answer], answers: Sequence[Answer | BookingWorkerError]) -> None:
    for taker, answer in zip(takers, answers, strict=True):
        if taker.done():
            continue
        if isinstance(taker, _Group):
            taker.add(answer)
        elif isinstance(answer, BookingWorkerError):
            taker.set_exception(answer)
        else:
            taker.set_result(answer)


def _fail(takers: _Takers[Answer], error: Exception) -> None:
    for taker in takers:
        if not taker.done():
            taker.set_exception(error)
