"""Runs scripts in the engine: calls that arrive together travel together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from redis.asyncio import Redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.scripts import Script

Answer = TypeVar("Answer")

_PATIENCE_SECONDS: Final = 1.8
"""A caller hears of a dead or hung engine within 2 s."""
_REFUSALS: Final = (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_REFUSAL_WORDS: Final = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE"})
_MOST_IN_FLIGHT: Final = 4
_MOST_PER_TRIP: Final = 512


async def in_time(answer: Awaitable[Answer]) -> Answer:
    """The answer of a plain command. Raises EngineUnavailable when none comes within 2 s."""
    # On a task of its own: on Python 3.11 the client's own timeouts may swallow a cancellation
    # that is meant for who asked, who would then never end.
    asking = asyncio.ensure_future(answer)
    try:
        await asyncio.wait({asking}, timeout=_PATIENCE_SECONDS)
        if not asking.done():
            raise _unavailable(TimeoutError())
        return asking.result()
    except (RedisError, OSError, TimeoutError) as error:
        raise _unavailable(error) from error
    finally:
        asking.cancel()


def _unavailable(error: Exception) -> EngineUnavailable:
    return EngineUnavailable(f"the engine is not available: {error!r}")


def _refuses(error: ResponseError) -> bool:
    """Whether it is the state of the engine, and not the script, that says no: nothing has run."""
    return isinstance(error, _REFUSALS) or str(error).split(" ", 1)[0] in _REFUSAL_WORDS


class _Call(NamedTuple):
    script: Script
    keys: Sequence[str]
    args: Sequence[str | bytes | int]
    until: float
    answer: asyncio.Future[Any]


class ScriptRunner:
    """Sends scripts to the engine in pipelines, several at a time.

    A call leaves at the end of the event loop's turn, or, when several pipelines are under way
    already, with the next one that returns. So a busy service pays for a round trip (and the
    engine for an fsync) once for many calls, and an idle one waits for nobody.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: deque[_Call] = deque()
        self._trips: set[asyncio.Task[None]] = set()
        self._leaving = False

    def run(
        self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]
    ) -> asyncio.Future[Any]:
        """The answer of the script, later.

        Raises (through the future):
            EngineUnavailable: no answer within 2 s, whether the script ran is unknown; or the
                engine takes no writes now.
            redis.exceptions.ResponseError: the script answered with an error of its own.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_SECONDS
        call = _Call(script, keys, args, until, loop.create_future())
        self._waiting.append(call)
        if not self._leaving and len(self._trips) < _MOST_IN_FLIGHT:
            self._leaving = True
            loop.call_soon(self._leave)
        return call.answer

    def _leave(self) -> None:
        self._leaving = False
        calls: list[_Call] = []
        while self._waiting and len(calls) < _MOST_PER_TRIP:
            call = self._waiting.popleft()
            if not call.answer.done():
                calls.append(call)
        if calls:
            trip = asyncio.get_running_loop().create_task(self._travel(calls))
            self._trips.add(trip)
            trip.add_done_callback(self._arrived)

    def _arrived(self, trip: asyncio.Task[None]) -> None:
        self._trips.discard(trip)
        if self._waiting and not self._leaving:
            self._leave()

    async def _travel(self, calls: list[_Call]) -> None:
        try:
            # Of the one that has waited longest, before it left too.
            async with asyncio.timeout_at(calls[0].until):
                answers = await self._send(calls)
        except (RedisError, OSError, TimeoutError) as error:
            _fail(calls, _unavailable(error))
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
            if isinstance(answer, ResponseError):
                failure = _unavailable(answer) if _refuses(answer) else answer
                call.answer.set_exception(failure)
            else:
                call.answer.set_result(answer)

    async def _send(self, calls: list[_Call]) -> list[Any]:
        answers = await self._pipeline("EVALSHA", [(call, call.script.sha) for call in calls])
        # The engine forgets scripts when it restarts or on SCRIPT FLUSH. What it does not know
        # has not run; sent again in full, it is known from then on.
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._pipeline(
                "EVAL", [(calls[at], calls[at].script.text) for at in unknown]
            )
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        return answers

    async def _pipeline(self, command: str, calls: list[tuple[_Call, str]]) -> list[Any]:
        if len(calls) == 1:
            call, text = calls[0]
            try:
                return [
                    await self._client.execute_command(
                        command, text, len(call.keys), *call.keys, *call.args
                    )
                ]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline(transaction=False)
        for call, text in calls:
            pipeline.execute_command(command, text, len(call.keys), *call.keys, *call.args)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


def _fail(calls: Sequence[_Call], error: Exception) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(error)
