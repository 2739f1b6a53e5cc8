"""The way to one server: calls that arrive together travel together, on one connection."""

from __future__ import annotations

import asyncio
import math
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.scripts import Script

Word: TypeAlias = str | bytes | int

PATIENCE_SECONDS: Final = 1.8
"""A caller hears of a dead or hung engine within 2 s."""
NO_WAIT: Final = Acknowledge()
_REFUSALS: Final = (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
)
_REFUSAL_CODES: Final = frozenset(
    {"BUSY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "UNKILLABLE"}
)
# Redis 6.2 wraps what a command inside a script was refused with; later ones answer it as it is.
_WRAPPED: Final = re.compile(r"Error running script .*: -([A-Z]+) ")
_MOST_UNDER_WAY: Final = 2
_MOST_PER_TRIP: Final = 512
_MOST_BYTES_PER_TRIP: Final = 256 * 1024
"""A trip of a hundred full batches of joins would take longer than its callers wait."""
_LARGE_ARGS: Final = 64
_LARGE_BYTES: Final = 4 * 1024


def unavailable(error: Exception | str) -> EngineUnavailable:
    """What a caller is told when the engine gave no answer, or takes no writes now."""
    # The representation of redis-py's errors leaves out what they say.
    what = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return EngineUnavailable(f"the engine is not available: {what}")


def _code(error: Exception) -> str:
    wrapped = _WRAPPED.search(str(error))
    return wrapped[1] if wrapped else str(error).split(" ", 1)[0]


def refuses(error: Exception) -> bool:
    """Whether it is the state of the engine, and not the script, that says no: nothing has run."""
    return isinstance(error, _REFUSALS) or _code(error) in _REFUSAL_CODES


def is_replicas(error: Exception) -> bool:
    """Whether a replica says so, which was the master when the connection was made."""
    return isinstance(error, ReadOnlyError) or _code(error) == "READONLY"


class Taker(Protocol):
    """Is told the outcome of a call, once. An asyncio.Future is one: it passes it on a turn later.

    One that is no future hears it at once, and must not raise.
    """

    def done(self) -> bool:
        """Whether it needs no outcome (any more)."""

    def set_result(self, result: Any, /) -> None:
        """The answer."""

    def set_exception(self, exception: Exception, /) -> None:
        """Why there is none."""

    def cancel(self) -> bool:
        """There will be none: the event loop is being closed."""


class Reading:
    """Tells a taker what an answer means, instead of the answer itself."""

    __slots__ = ("_read", "_taker")

    def __init__(self, taker: Taker, read: Callable[[Any], Any]) -> None:
        self._taker = taker
        self._read = read

    def done(self) -> bool:
        """As the taker."""
        return self._taker.done()

    def set_result(self, result: Any, /) -> None:
        """Tell what it means, or the error of what reads it."""
        try:
            meaning = self._read(result)
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            self._taker.set_exception(error)
        else:
            self._taker.set_result(meaning)

    def set_exception(self, exception: Exception, /) -> None:
        """Tell it on."""
        self._taker.set_exception(exception)

    def cancel(self) -> bool:
        """Tell it on."""
        return self._taker.cancel()


class Call(NamedTuple):
    """One script, or one plain command, and who waits for its answer until when."""

    script: Script | None
    keys: Sequence[str]
    args: Sequence[Word]
    until: float
    answer: Taker
    hops: int = 0
    """How often it was sent on to another node of a Cluster."""

    def words(self, *, in_full: bool = False) -> tuple[Word, ...]:
        """The command; ``in_full`` with the text of the script."""
        if self.script is None:
            return tuple(self.args)
        if in_full:
            return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return sum(len(arg) for arg in self.args if isinstance(arg, bytes))

    @property
    def is_large(self) -> bool:
        """Whether it is a load of its own, so that waiting for others would gain nothing."""
        return len(self.args) >= _LARGE_ARGS or self.size >= _LARGE_BYTES


def in_time() -> tuple[asyncio.Future[Any], float]:
    """A future, and when it hears that there was no answer if nobody told it one: in 1.8 s."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()
    until = loop.time() + PATIENCE_SECONDS
    # One for each: whose time is over hears so, wherever the call is, and nobody else does.
    over = loop.call_at(until, too_late, answer)
    answer.add_done_callback(lambda _: over.cancel())
    return answer, until


def new_call(
    script: Script | None, keys: Sequence[str], args: Sequence[Word]
) -> tuple[Call, asyncio.Future[Any]]:
    """A call, and its answer, which comes within 2 s from now."""
    answer, until = in_time()
    return Call(script, keys, args, until, answer), answer


class _Trip(NamedTuple):
    calls: Sequence[Call]
    in_full: bool
    answers: int
    """How many will come."""


class Lane(ABC):
    """The way to one server: calls travel in pipelines, two at a time, on one connection.

    A call leaves at the end of the event loop's turn, or, when two pipelines are under way
    already, when one of them is answered. So a busy service pays for a round trip (and the
    engine for an fsync) once for many calls, and an idle one waits for nobody. A large call
    leaves at once: a turn of a busy loop is as long as the engine takes for it.

    What is sent first runs first. The connection is borrowed while anything is under way; what
    breaks it fails for all of that.

    With ``acknowledge`` each pipeline ends by waiting until all that it wrote is kept so;
    ``before`` is sent before each call.
    """

    def __init__(self, acknowledge: Acknowledge, before: Sequence[tuple[Word, ...]] = ()) -> None:
        self._acknowledge = acknowledge
        self._before = before
        self._waiting: deque[Call] = deque()
        self._under_way: deque[_Trip] = deque()
        self._connection: AbstractConnection | None = None
        self._leads_elsewhere = False
        """Whether the connection is to be given up once nothing is under way on it."""
        self._leaving = False
        self._travelling: asyncio.Task[None] | None = None

    def add(self, call: Call, *, first: bool = False) -> None:
        """Have a call leave soon; ``first`` before those that wait already."""
        if first:
            self._waiting.appendleft(call)
        else:
            self._waiting.append(call)
        if self._travelling is None:
            self._begin()
        elif self._room() is not None:
            if call.is_large:
                self._leave()
            elif not self._leaving:
                self._leaving = True
                asyncio.get_running_loop().call_soon(self._leave)

    def _begin(self) -> None:
        # From the event loop's next turn on: whoever calls in this one goes along.
        self._travelling = asyncio.get_running_loop().create_task(self._travel())
        self._travelling.add_done_callback(self._ended)

    def _ended(self, _travelling: asyncio.Task[None]) -> None:
        self._travelling = None
        if self._waiting:
            self._begin()

    def _room(self) -> AbstractConnection | None:
        """The connection, if a trip may leave on it now."""
        connection = self._connection
        if (
            connection is None
            or len(self._under_way) >= _MOST_UNDER_WAY
            or self._leads_elsewhere
            or connection.should_reconnect()
        ):
            return None
        return connection

    def _leave(self) -> None:
        self._leaving = False
        while self._waiting and (connection := self._room()):
            if calls := self._boarding():
                self._send(connection, calls)

    def _boarding(self) -> list[Call]:
        calls: list[Call] = []
        size = 0
        now = asyncio.get_running_loop().time()
        while self._waiting and len(calls) < _MOST_PER_TRIP and size < _MOST_BYTES_PER_TRIP:
            call = self._waiting.popleft()
            if call.until <= now:
                too_late(call.answer)
            elif not call.answer.done():
                calls.append(call)
                size += call.size
        return calls

    def _send(
        self, connection: AbstractConnection, calls: Sequence[Call], *, in_full: bool = False
    ) -> None:
        commands = [
            words for call in calls for words in (*self._before, call.words(in_full=in_full))
        ]
        if self._acknowledge.waits:
            commands += self._acknowledge.commands
        try:
            _write(connection, commands)
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            _fail(calls, error)
        else:
            self._under_way.append(_Trip(calls, in_full, len(commands)))

    async def _travel(self) -> None:
        """Send and be answered until nobody waits."""
        if not any(not call.answer.done() for call in self._waiting):
            self._waiting.clear()
            return
        connection = None
        is_at_rest = False
        try:
            async with asyncio.timeout_at(max(call.until for call in self._waiting)):
                connection = self._connection = await self._borrow()
            self._leave()
            while self._under_way or await self._more_comes():
                trip = self._under_way[0]
                # As long as anybody waits; who has waited longest hears sooner.
                async with asyncio.timeout_at(max(call.until for call in trip.calls)):
                    answers = [await _answer(connection) for _ in range(trip.answers)]
                self._under_way.popleft()
                self._arrived(connection, trip, answers)
                self._leave()
            is_at_rest = True
        except (RedisError, OSError, TimeoutError) as error:
            self._broke(self._stranded(), error)
        except asyncio.CancelledError:
            for call in self._stranded():
                call.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            _fail(self._stranded(), error)
        finally:
            self._connection = None
            if connection is not None:
                if not is_at_rest:
                    # Nobody else may read what is still to come.
                    await connection.disconnect(nowait=True)
                await self._give_back(connection)
            self._leads_elsewhere = False

    async def _more_comes(self) -> bool:
        # Who was told in this turn goes on in the next one, and asks again, maybe.
        await asyncio.sleep(0)
        self._leave()
        return bool(self._under_way)

    def _stranded(self) -> list[Call]:
        """Whoever goes no further, as the connection is of no use to anybody any more."""
        stranded = [call for trip in self._under_way for call in trip.calls]
        self._under_way.clear()
        if self._connection is None:
            stranded += self._waiting
            self._waiting.clear()
        # Who is told now may ask again at once: on another one.
        self._connection = None
        return [call for call in stranded if not call.answer.done()]

    def _arrived(self, connection: AbstractConnection, trip: _Trip, told: Sequence[Any]) -> None:
        each = len(self._before) + 1
        answers = told[each - 1 : each * len(trip.calls) : each]
        missing = self._acknowledge.shortfall(told[-1]) if self._acknowledge.waits else None
        unknown: list[Call] = []
        for call, answer in zip(trip.calls, answers, strict=True):
            if isinstance(answer, NoScriptError) and not trip.in_full:
                unknown.append(call)
            elif call.answer.done():
                continue
            elif isinstance(answer, Exception):
                self._failed(call, answer)
            elif missing:
                call.answer.set_exception(unavailable(missing))
            else:
                call.answer.set_result(answer)
        # The engine forgets scripts when it restarts or on SCRIPT FLUSH. What it does not know
        # has not run; sent again in full, it is known from then on.
        if unknown:
            self._send(connection, unknown, in_full=True)

    def _broke(self, calls: Sequence[Call], error: Exception) -> None:
        """The connection broke: whether these calls have run is unknown."""
        _fail(calls, unavailable(error))

    def _failed(self, call: Call, error: Exception) -> None:
        """The answer to one call is an error."""
        call.answer.set_exception(unavailable(error) if refuses(error) else error)

    @abstractmethod
    async def _borrow(self) -> AbstractConnection:
        """A connection on which no answer is still to come."""

    @abstractmethod
    async def _give_back(self, connection: AbstractConnection) -> None:
        """Nothing is under way on it; it may be closed."""


def _write(connection: AbstractConnection, commands: Iterable[tuple[Word, ...]]) -> None:
    # As redis-py does, but without a turn of the event loop in between, and without waiting for
    # room: what is under way is bounded. A connection that was closed says so to who reads.
    writer = connection._writer  # noqa: SLF001
    if writer is not None:
        with suppress(RuntimeError):  # uvloop's, of a transport that is closed
            writer.writelines(connection.pack_commands(commands))


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error


def too_late(answer: Taker) -> None:
    """Tell it that there was no answer in time."""
    if not answer.done():
        answer.set_exception(unavailable(TimeoutError("no answer in time")))


def _fail(calls: Sequence[Call], error: Exception) -> None:
    for call in calls:
        call.answer.set_exception(error)
