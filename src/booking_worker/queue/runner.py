"""Runs scripts in the engine: calls that arrive together travel together."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from redis.asyncio import Redis
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
from typing_extensions import override

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
_MOST_IN_FLIGHT: Final = 2
_MOST_PER_TRIP: Final = 512
_MOST_BYTES_PER_TRIP: Final = 256 * 1024
"""A trip of a hundred full batches of joins would take longer than its callers wait."""


def unavailable(error: Exception | str) -> EngineUnavailable:
    """What a caller is told when the engine gave no answer, or takes no writes now."""
    # The representation of redis-py's errors leaves out what they say.
    what = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return EngineUnavailable(f"the engine is not available: {what}")


def _code(error: Exception) -> str:
    wrapped = _WRAPPED.search(str(error))
    return wrapped[1] if wrapped else str(error).split(" ", 1)[0]


def _refuses(error: Exception) -> bool:
    """Whether it is the state of the engine, and not the script, that says no: nothing has run."""
    return isinstance(error, _REFUSALS) or _code(error) in _REFUSAL_CODES


def _is_replicas(error: Exception) -> bool:
    """Whether a replica says so, which was the master when the connection was made."""
    return isinstance(error, ReadOnlyError) or _code(error) == "READONLY"


class Call(NamedTuple):
    """One script, or one plain command, and who waits for its answer until when."""

    script: Script | None
    keys: Sequence[str]
    args: Sequence[Word]
    until: float
    answer: asyncio.Future[Any]
    hops: int = 0
    """How often it was sent on to another node of a Cluster."""

    def words(self, *, in_full: bool = False) -> tuple[Word, ...]:
        """The command; ``in_full`` with the text of the script."""
        if self.script is None:
            return tuple(self.args)
        if in_full:
            return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


def new_call(script: Script | None, keys: Sequence[str], args: Sequence[Word]) -> Call:
    """A call that is answered within 2 s from now."""
    loop = asyncio.get_running_loop()
    return Call(script, keys, args, loop.time() + PATIENCE_SECONDS, loop.create_future())


class Lane(ABC):
    """The way to one server: calls travel in pipelines, two at a time.

    A call leaves at the end of the event loop's turn, or, when two pipelines are under way
    already, with the next one that returns. So a busy service pays for a round trip (and the
    engine for an fsync) once for many calls, and an idle one waits for nobody.

    With ``acknowledge`` each pipeline ends by waiting until all that it wrote is kept so.
    """

    def __init__(self, acknowledge: Acknowledge) -> None:
        self._acknowledge = acknowledge
        self._waiting: deque[Call] = deque()
        self._trips: set[asyncio.Task[None]] = set()
        self._leaving = False

    def add(self, call: Call, *, first: bool = False) -> None:
        """Have a call leave soon; ``first`` before those that wait already."""
        # One for each: whose time is over hears so, wherever the call is, and nobody else does.
        over = asyncio.get_running_loop().call_at(call.until, _too_late, call.answer)
        call.answer.add_done_callback(lambda _: over.cancel())
        if first:
            self._waiting.appendleft(call)
        else:
            self._waiting.append(call)
        if not self._leaving and len(self._trips) < _MOST_IN_FLIGHT:
            self._leave()

    def _leave(self) -> None:
        self._leaving = True
        trip = asyncio.get_running_loop().create_task(self._trip())
        self._trips.add(trip)
        trip.add_done_callback(self._arrived)

    def _arrived(self, trip: asyncio.Task[None]) -> None:
        self._trips.discard(trip)
        if trip.cancelled():
            # Before it began, maybe: nobody else would say that it leaves no more.
            self._leaving = False
        if self._waiting and not self._leaving:
            self._leave()

    async def _trip(self) -> None:
        # Begins with the event loop's next turn: whoever called in this one goes along.
        self._leaving = False
        if calls := self._boarding():
            if self._waiting and len(self._trips) < _MOST_IN_FLIGHT:
                self._leave()
            await self._travel(calls)

    def _boarding(self) -> list[Call]:
        calls: list[Call] = []
        size = 0
        now = asyncio.get_running_loop().time()
        while self._waiting and len(calls) < _MOST_PER_TRIP and size < _MOST_BYTES_PER_TRIP:
            call = self._waiting.popleft()
            if call.until <= now:
                _too_late(call.answer)
            elif not call.answer.done():
                calls.append(call)
                size += sum(len(arg) for arg in call.args if isinstance(arg, bytes))
        return calls

    async def _travel(self, calls: list[Call]) -> None:
        try:
            # As long as anybody waits; who has waited longest, before it left too, hears sooner.
            async with asyncio.timeout_at(max(call.until for call in calls)):
                answers = await self._send(calls)
        except (RedisError, OSError, TimeoutError) as error:
            self._broke(calls, error)
            return
        except asyncio.CancelledError:
            for call in calls:
                call.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            _fail(calls, error)
            return
        for call, answer in zip(calls, answers, strict=True):
            if call.answer.done():
                continue
            if isinstance(answer, Exception):
                self._failed(call, answer)
            else:
                call.answer.set_result(answer)

    def _broke(self, calls: list[Call], error: Exception) -> None:
        """A trip had no answers: whether its calls have run is unknown."""
        _fail(calls, unavailable(error))

    def _failed(self, call: Call, error: Exception) -> None:
        """The answer to one call is an error."""
        call.answer.set_exception(unavailable(error) if _refuses(error) else error)

    async def _send(self, calls: list[Call]) -> list[Any]:
        answers = await self._pipeline([call.words() for call in calls])
        # The engine forgets scripts when it restarts or on SCRIPT FLUSH. What it does not know
        # has not run; sent again in full, it is known from then on.
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._pipeline([calls[at].words(in_full=True) for at in unknown])
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        return answers

    async def _pipeline(self, commands: list[tuple[Word, ...]]) -> list[Any]:
        if not self._acknowledge.waits:
            return await self._execute(commands)
        told = await self._execute([*commands, *self._acknowledge.commands])
        answers, kept = told[: len(commands)], told[-1]
        if missing := self._acknowledge.shortfall(kept):
            error = unavailable(missing)
            return [each if isinstance(each, Exception) else error for each in answers]
        return answers

    @abstractmethod
    async def _execute(self, commands: list[tuple[Word, ...]]) -> list[Any]:
        """The answers, or errors, of commands that travel on one connection."""


class ScriptRunner(Lane):
    """Runs scripts on one server, or on whichever Sentinel calls the master."""

    def __init__(self, client: Redis, acknowledge: Acknowledge = NO_WAIT) -> None:
        super().__init__(acknowledge)
        self._client = client
        self._demoted = False

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> asyncio.Future[Any]:
        """The answer of the script, later.

        Raises (through the future):
            EngineUnavailable: no answer within 2 s, whether the script ran, or still will, is
                unknown; or the engine takes no writes now; or the script ran and its writes are
                not kept as ``acknowledge`` asks.
            redis.exceptions.ResponseError: the script answered with an error of its own.
        """
        call = new_call(script, keys, args)
        self.add(call)
        return call.answer

    def command(self, key: str, *words: Word) -> asyncio.Future[Any]:
        """The answer of a plain command on one key, as the engine gives it; otherwise as run."""
        call = new_call(None, (key,), words)
        self.add(call)
        return call.answer

    @override
    async def _travel(self, calls: list[Call]) -> None:
        await super()._travel(calls)
        if self._demoted:
            await self._connect_anew()

    @override
    def _failed(self, call: Call, error: Exception) -> None:
        super()._failed(call, error)
        self._demoted |= _is_replicas(error)

    async def _connect_anew(self) -> None:
        """Where the name or the address leads to now, another server may be the master."""
        self._demoted = False
        pool = self._client.connection_pool
        await pool.update_active_connections_for_reconnect()
        with contextlib.suppress(RedisError, OSError):  # of connections that are gone already
            await pool.disconnect(inuse_connections=False)

    @override
    async def _execute(self, commands: list[tuple[Word, ...]]) -> list[Any]:
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            return await exchange(connection, commands)
        finally:
            await pool.release(connection)


async def exchange(
    connection: AbstractConnection, commands: Sequence[tuple[Word, ...]]
) -> list[Any]:
    """The answers, or errors, of commands that are sent together. Whoever calls sets the time.

    What redis-py's client does besides costs more than the script calls of a trip themselves.
    """
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
        return [await _answer(connection) for _ in commands]
    except BaseException:
        # Nobody else may read what is still to come.
        await connection.disconnect(nowait=True)
        raise


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error


def _too_late(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(unavailable(TimeoutError("no answer in time")))


def _fail(calls: Sequence[Call], error: Exception) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(error)
