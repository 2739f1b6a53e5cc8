"""A place in the line: taking it, asking after it, giving it back, paying for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgpack

from booking_worker.domain.errors import (
    BookingWorkerError,
    IdempotencyConflict,
    QueueFull,
)
from booking_worker.domain.item_id import event_of
from booking_worker.domain.model import Join, Joined, Place, Status
from booking_worker.queue import records
from booking_worker.queue.lane import Reading, Taker, in_time
from booking_worker.queue.transitions import Transitions

_LONG_ARRAY: Final = 16
"""From so many values on the header of an array in msgpack takes three bytes, before one."""
_WAITING: Final = Status.WAITING
"""An enum's members are found slower than a module's names, and one is needed for each join."""


_pack: Final = msgpack.Packer(use_bin_type=False).pack


def pack_joins(joins: Sequence[Join]) -> bytes:
    """What join.lua takes: the msgpack values of all joins, one kind after the other.

    One argument for all: a client that encodes each value costs more than the join itself.
    """
    item_ids, user_ids, seats, details, keys, digests = zip(*joins, strict=True)
    values = [len(joins), *user_ids, *item_ids, *seats, *map(_pack, details)]
    if any(keys):
        values += keys
        values += digests
    packed = _pack(values)
    # Without the header that makes an array of them: Lua would let a table grow value by value.
    return packed[1 if len(values) < _LONG_ARRAY else 3 :]


class Line(Transitions):
    """The transitions that users ask for."""

    async def join(
        self, event_id: str, joins: Sequence[Join], actor: str = ""
    ) -> list[Joined | BookingWorkerError]:
        """One outcome for each join, in order: a place (new, or held already) or an error.

        The errors, as values: QueueFull, IdempotencyConflict. All joins are of one event and at
        most 1,000; ``actor`` is for the audit when it is not the users themselves.

        Raises:
            EngineUnavailable: the outcome is unknown; joining again answers the same place.
        """
        if not joins:
            return []
        await self._remember(event_id)
        outcomes, until = in_time()
        self._join_now(event_id, joins, actor or "user", outcomes, until)
        return await outcomes  # type: ignore[no-any-return]

    def ask_to_join(self, event_id: str, joins: Sequence[Join], taker: Taker, until: float) -> None:
        """As :meth:`join`, on the shortest way: ``taker`` is told the outcomes, or the error.

        ``until`` is when it needs them no more, by the event loop's clock.
        """
        if self._is_remembered(event_id):
            self._join_now(event_id, joins, "user", taker, until)
        else:
            joining = self._join_first(event_id, joins, taker, until)
            first = asyncio.get_running_loop().create_task(joining)
            self._joining.add(first)
            first.add_done_callback(self._joining.discard)

    async def _join_first(
        self, event_id: str, joins: Sequence[Join], taker: Taker, until: float
    ) -> None:
        try:
            await self._remember(event_id)
            self._join_now(event_id, joins, "user", taker, until)
        except asyncio.CancelledError:
            taker.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            if not taker.done():
                taker.set_exception(error)

    def _join_now(
        self, event_id: str, joins: Sequence[Join], actor: str, taker: Taker, until: float
    ) -> None:
        reading = Reading(taker, partial(self._outcomes, event_id, joins))
        self._run_for("join", event_id, reading, until, joins=pack_joins(joins), actor=actor)

    def _outcomes(
        self, event_id: str, joins: Sequence[Join], answers: bytes
    ) -> list[Joined | BookingWorkerError]:
        return [
            self._joined(event_id, join, answer)
            for join, answer in zip(joins, msgpack.unpackb(answers), strict=True)
        ]

    def _joined(self, event_id: str, join: Join, answer: Any) -> Joined | BookingWorkerError:
        if isinstance(answer, int):
            return Joined(join.item_id, answer, already_queued=False, status=_WAITING)
        if isinstance(answer, list):
            item_id, position, status = answer
            return Joined(item_id, position, already_queued=True, status=Status(status))
        if answer == "QUEUE_FULL":
            return QueueFull(event_id, self._limits.max_size)
        return IdempotencyConflict()

    async def positions(self, event_id: str, item_ids: Sequence[str]) -> list[Place | None]:
        """Where at most 1,000 items of one event stand, in order; None where there is no such item.

        Raises:
            EngineUnavailable: no answer within 2 s.
        """
        if not item_ids:
            return []
        places, until = in_time()
        self.ask_positions(event_id, item_ids, places, until)
        return await places  # type: ignore[no-any-return]

    def ask_positions(
        self, event_id: str, item_ids: Sequence[str], taker: Taker, until: float
    ) -> None:
        """As :meth:`positions`, on the shortest way, for a taker as of :meth:`ask_to_join`."""
        reading = Reading(taker, partial(records.places, item_ids))
        self._run_for("positions", event_id, reading, until, *item_ids)

    async def cancel(self, item_id: str, user_id: str, reason: str, actor: str) -> Status:
        """Give a place back; answers the status it has now.

        ``cancelled`` at once while waiting; ``processing`` or ``releasing`` when a booking has
        to be released first. Cancelling again is no error. An empty ``user_id`` is an operator.

        Raises:
            ItemNotFound, NotYourItem, EngineUnavailable
            WrongStatus: paid for, being paid for, or ended in another way.
        """
        return await self._run_status(
            "cancel", event_of(item_id), item_id=item_id, user_id=user_id, reason=reason,
            actor=actor,
        )  # fmt: skip

    async def ask_confirm(self, item_id: str, user_id: str, payment_reference: str) -> Status:
        """The user has paid: have the held booking confirmed. ``confirming`` or ``completed``.

        The first payment counts: asking again changes nothing and answers the same.

        Raises:
            ItemNotFound, NotYourItem, EngineUnavailable
            WrongStatus: nothing is held (yet), or the hold is over.
        """
        return await self._run_status(
            "ask_confirm", event_of(item_id), item_id=item_id, user_id=user_id,
            payment_reference=payment_reference, actor=f"user:{user_id}",
        )  # fmt: skip
