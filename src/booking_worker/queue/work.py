"""The work on items: claiming tasks and settling them, deadlines, capacity."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Final, NamedTuple, TypeAlias

import msgpack

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Held, Lease, Status, Task
from booking_worker.queue import records
from booking_worker.queue.batching import Coalescer
from booking_worker.queue.lane import Reading, Taker
from booking_worker.queue.transitions import Transitions


class Claimed(NamedTuple):
    """What a worker was given."""

    leases: list[Lease]
    blocked: bool
    """Somebody waits, but nobody more can be admitted now."""
    needs_refresh: bool
    """A refresh of capacity may change that."""
    suspects: bool
    """There are tasks that two workers were lost over; see :meth:`Work.claim`."""
    now_ms: int
    engine: str
    """Which engine answered; empty where nobody waits and nothing was claimed."""


class Expired(NamedTuple):
    """What the deadlines did."""

    moved: int
    more: bool
    """More deadlines have passed than were acted on: call again."""
    next_in_ms: int | None
    """Milliseconds until the next deadline; None when there is none."""


class CapacityQuestion(NamedTuple):
    """The books at the moment when the Ticket Service is asked."""

    settled_seats: int
    moves: int
    refreshes: int
    """Answers that were taken so far, over all replicas."""
    engine: str
    """The engine that keeps them."""
    epoch: str
    """The engine that they were refreshed under last; empty: never yet."""
    born: str
    """The first item ever of the event; another one than before: the books were lost."""


_LEASE_VALUES: Final = 4
_HOLDS_AT_ONCE: Final = 100
_NewHold: TypeAlias = tuple[Lease, Held]


class Work(Transitions):
    """The transitions that workers ask for.

    Every settling method, ``extend`` and ``hand_back`` raise Fenced, and change nothing, when
    the lease has ended; all raise EngineUnavailable when the engine does not answer.
    """

    async def claim(
        self,
        event_id: str,
        worker_id: str,
        limit: int,
        tasks: frozenset[Task],
        *,
        suspects: bool = False,
    ) -> Claimed:
        """Up to ``limit`` tasks of the given kinds, each leased to this worker.

        Confirm before release before reserve, each in the order of the line. Nobody is admitted
        while the event is paused, or all are. With ``suspects`` only those that two workers were
        lost over, and without it none of them: whoever works on one should have nothing else in
        hand, as it may be what kills its worker.
        """
        answer = await self._run(
            "claim", event_id, worker_id=worker_id, limit=limit, actor=f"worker:{worker_id}",
            admit=int(not (self.layout and self.layout.paused)), suspects=int(suspects),
            **{task.value: int(task in tasks) for task in Task},
        )  # fmt: skip
        now_ms, blocked, needs_refresh, suspected, here, *flat = answer
        engine = here.decode()
        leases = [
            records.lease(event_id, engine, flat[at : at + _LEASE_VALUES])
            for at in range(0, len(flat), _LEASE_VALUES)
        ]
        return Claimed(leases, bool(blocked), bool(needs_refresh), bool(suspected), now_ms, engine)

    async def readmit(self, event_id: str, item_ids: Sequence[str]) -> int:
        """Admit again those of at most 1,000 items that wait although they have bookings.

        Answers how many. For an engine that was replaced by one that knows less.
        """
        again: int = await self._run("readmit", event_id, *item_ids)
        return again

    async def extend(self, lease: Lease) -> int:
        """Keep a lease for its whole length from now; answers its new end, ms."""
        until_ms: int = await self._run(
            "extend", lease.event_id, item_id=lease.item_id, token=lease.token
        )
        return until_ms

    async def _settle(self, name: str, lease: Lease, **arguments: str | int) -> Status:
        return await self._run_status(
            name, lease.event_id, item_id=lease.item_id, token=lease.token,
            actor=f"worker:{lease.worker_id}", **arguments,
        )  # fmt: skip

    async def hand_back(self, lease: Lease, *, asked: bool) -> Status:
        """Give a task back unfinished, at once; it uses up no attempt.

        ``asked`` says whether another service may have seen the call: if not, a reserve goes
        back to its place in the line; else it keeps its seats for the next worker.
        """
        return await self._settle("hand_back", lease, asked=int(asked))

    async def settle_retry(
        self, lease: Lease, backoff_ms: int, why: str, *, uses_up: bool = True
    ) -> Status:
        """It failed for now: again after ``backoff_ms``, or ``failed`` when that was the last.

        ``uses_up`` says whether it uses up an attempt: not when it waits for a service.
        """
        return await self._settle(
            "settle_retry", lease, backoff_ms=backoff_ms, why=why, uses_up=int(uses_up)
        )

    async def settle_held(self, lease: Lease, held: Held) -> Status:
        """Reserved: ``awaiting_payment``, or ``releasing`` when a cancel came meanwhile."""
        # Those that come back together travel together; of one worker, who did it.
        line = f"{lease.worker_id} {lease.event_id}"
        return await self._holds.ask(line, (lease, held))

    @cached_property
    def _holds(self) -> Coalescer[_NewHold, Status]:
        return Coalescer(self._keep_holds, most=_HOLDS_AT_ONCE)

    def _keep_holds(
        self, _line: str, holds: Sequence[_NewHold], taker: Taker, until: float
    ) -> None:
        """One outcome for each, in order; all are of one event and one worker."""
        longest = self._limits.payment_timeout_ms
        packed = msgpack.packb(
            [
                (
                    lease.item_id,
                    lease.token,
                    held.booking_id,
                    held.booking_reference,
                    held.reservation_id,
                    longest if held.hold_ms is None else min(longest, held.hold_ms),
                )
                for lease, held in holds
            ],
            use_bin_type=False,
        )
        first = holds[0][0]
        self._run_for(
            "settle_held", first.event_id, Reading(taker, partial(_kept, holds)), until,
            holds=packed, actor=f"worker:{first.worker_id}",
        )  # fmt: skip

    async def settle_rejected(self, lease: Lease, message: str) -> Status:
        """Refused for good: ``rejected``, and the seats go to the next in line."""
        return await self._settle("settle_rejected", lease, message=message)

    async def settle_short(self, lease: Lease, message: str) -> Status:
        """Refused for lack of tickets: ``waiting`` at the old place, until the next refresh."""
        return await self._settle("settle_short", lease, message=message)

    async def settle_confirmed(self, lease: Lease, booking_reference: str) -> Status:
        """Confirmed: ``completed``."""
        return await self._settle("settle_confirmed", lease, booking_reference=booking_reference)

    async def settle_unconfirmed(self, lease: Lease, message: str) -> Status:
        """The confirm was refused, the booking is open: ``awaiting_payment``, same deadline."""
        return await self._settle("settle_unconfirmed", lease, message=message)

    async def settle_gone(self, lease: Lease, message: str) -> Status:
        """The booking does not exist any more: ``expired`` (or ``cancelled``, if asked for)."""
        return await self._settle("settle_gone", lease, message=message)

    async def settle_released(self, lease: Lease) -> Status:
        """Released: ``expired`` or ``cancelled``, and the seats go to the next in line."""
        return await self._settle("settle_released", lease)

    async def settle_paid(self, lease: Lease, booking_reference: str) -> Status:
        """Found paid before its release: ``completed``."""
        return await self._settle("settle_paid", lease, booking_reference=booking_reference)

    async def settle_paying(self, lease: Lease) -> Status:
        """Found being paid before its release: ``awaiting_payment`` a little longer, once."""
        return await self._settle("settle_paying", lease)

    async def next_deadline(self, event_id: str) -> int | None:
        """Milliseconds until the next deadline, negative once it has passed; None without any."""
        in_ms: int | None = await self._run("next_deadline", event_id)
        return in_ms

    async def expire(self, event_id: str, limit: int = 500, overdue_ms: int = 0) -> Expired:
        """Act on deadlines of an event that passed ``overdue_ms`` ago, the earliest first."""
        moved, more, next_in_ms = await self._run(
            "expire", event_id, limit=limit, overdue_ms=overdue_ms, actor="timeouts"
        )
        return Expired(moved, bool(more), None if next_in_ms < 0 else next_in_ms)

    async def ask_capacity(self, event_id: str) -> CapacityQuestion:
        """To be taken before the Ticket Service is asked how many are left.

        An engine that it is taken from for the first time may have lost that there is this event:
        it is listed anew.
        """
        settled, moves, refreshes, *told = await self._run("ask_capacity", event_id)
        engine, epoch, born = (word.decode() for word in told)
        if epoch != engine:
            await self._remember(event_id, anew=True)
        return CapacityQuestion(settled, moves, refreshes, engine, epoch, born)

    async def set_capacity(
        self, event_id: str, question: CapacityQuestion, available: int | None
    ) -> int | None:
        """Set what may still be admitted from the answer; an ``available`` of None is unlimited.

        It never overstates (see set_capacity.lua). Answers how many wait; None when nothing was
        set, as the engine or its books are other ones than those of the question: ask anew.
        """
        waiting: int = await self._run(
            "set_capacity", event_id, available=-1 if available is None else max(0, available),
            settled_seats=question.settled_seats, moves=question.moves,
            refreshes=question.refreshes, asked_engine=question.engine, born=question.born,
        )  # fmt: skip
        return None if waiting < 0 else waiting

    async def sell_out(
        self, event_id: str, limit: int = 500, *, goes_on: bool = False
    ) -> int | None:
        """Turn up to ``limit`` waiting items to ``sold_out``, if it is certain that all is sold.

        The whole event is told too, unless this ``goes_on`` with what the call before began.
        Answers how many still wait; None when it is not certain, or nobody waits.
        """
        waiting: int = await self._run("sell_out", event_id, limit=limit, goes_on=int(goes_on))
        return None if waiting < 0 else waiting


def _kept(holds: Sequence[_NewHold], answers: Sequence[bytes]) -> list[Status | Fenced]:
    return [
        Fenced(lease.item_id, lease.token) if answer == b"FENCED" else Status(answer.decode())
        for (lease, _), answer in zip(holds, answers, strict=True)
    ]
