"""How a stand-in answers a call: when all is well, and under its faults."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio

from booking_worker.sandbox.books import Outcome
from booking_worker.sandbox.faults import Draw, Fault, Faults
from booking_worker.sandbox.ledger import Entry, Ledger

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_LONGEST_HANG_SECONDS: Final = 60.0

_CODES: Final = {
    Outcome.SOLD_OUT: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.KEY_CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    Outcome.UNKNOWN: grpc.StatusCode.NOT_FOUND,
}


class Answering:
    """Begins and ends the calls of one stand-in, which may have no ledger to write in."""

    def __init__(self, faults: Faults, ledger: Ledger | None = None) -> None:
        self._faults = faults
        self._ledger = ledger

    async def begin(self, method: str, key: str, context: Context) -> Draw:
        """What is going to happen to this call; one that errs ends here."""
        draw = self._faults.draw()
        if draw.delay_seconds:
            await asyncio.sleep(draw.delay_seconds / 2)
        if draw.fault is Fault.ERROR:
            if self._ledger is not None:
                self._ledger.note(method, key, Outcome.ERROR)
                await self._ledger.saved()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "sandbox: told to fail")
        return draw

    async def end(self, draw: Draw, context: Context, entry: Entry | None = None) -> None:
        """Save what the call did; return if it is to be answered well.

        An entry that is a refusal ends the call with its status code.
        """
        if self._ledger is not None:
            await self._ledger.saved()
        if draw.delay_seconds:
            await asyncio.sleep(draw.delay_seconds / 2)
        if draw.answer_is_lost:
            await _lose(draw, context)
        if entry is not None and entry.outcome in _CODES:
            await context.abort(_CODES[entry.outcome], entry.message)


async def _lose(draw: Draw, context: Context) -> NoReturn:
    if draw.fault is Fault.HANG:
        # The deadline cancels it; a caller without one is let go in the end.
        await asyncio.sleep(_LONGEST_HANG_SECONDS)
    await context.abort(grpc.StatusCode.UNAVAILABLE, "sandbox: the answer was lost")
