"""Finding out what may be worked on next, and leasing it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Lease, Task
from booking_worker.queue.booking_queue import BookingQueue, Claimed
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.candidates import Candidates
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.gate import ALL_TASKS, Gate
from booking_worker.worker.recall import Recall
from booking_worker.worker.rounds import Rounds
from booking_worker.worker.suspects import Suspects

_NO_TASKS: Final[frozenset[Task]] = frozenset()
_BLOCKED_SECONDS: Final = 5.0
"""What unblocks an event wakes it; so often those are asked as well whose turn it is not."""

_log = get_logger(__name__)


class Claims:
    """Claims for one worker: from the events that may have work, in turns, as the gate allows.

    An event may have work when it is woken, when its last claim brought as many tasks as were
    asked for, when somebody waits there and one of its tasks has ended, and, once a second, when
    its turn comes in a look at all events (every 5 s for all where somebody waited in vain).
    ``hand_back`` takes leases that are not needed.
    A suspect is claimed when nothing is in hand, and nothing beside it.
    """

    def __init__(
        self,
        queue: BookingQueue,
        gate: Gate,
        capacity: CapacityKeeper,
        recall: Recall,
        metrics: Metrics,
        *,
        worker_id: str,
        hand_back: Callable[[Sequence[Lease]], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._gate = gate
        self._capacity = capacity
        self._recall = recall
        self._hand_back = hand_back
        self._failed = metrics.errors.labels("claim")
        self._worker_id = worker_id
        self._candidates = Candidates()
        self._rounds = Rounds(queue.events, clock=clock)
        self._trial: Lease | None = None
        self._suspects = Suspects()
        self._tasks = ALL_TASKS
        self._clock = clock
        self._ask_blocked_at = clock()

    def wake(self, event_id: str) -> None:
        """Something of this event may be claimed; of any, when empty."""
        if event_id:
            self._candidates.add(event_id)
        else:
            self._rounds.restart()

    def ended(self, lease: Lease) -> None:
        """The task of a lease that was claimed here has ended."""
        if lease is self._trial:
            self._trial = None
        self._suspects.ended(lease)
        self._candidates.add_if_blocked(lease.event_id)

    async def claim(self, slots: int, in_hand: int) -> list[Lease]:
        """What is to be worked on in so many slots besides what is in hand, in one round trip.

        Raises EngineUnavailable.
        """
        is_round = await self._look()
        may_claim, is_next = self._may_claim(slots, in_hand), False
        try:
            leases = await self._claim(slots, in_hand)
            # The others have their turn at once, then.
            is_next = self._may_claim(slots - len(leases), in_hand + len(leases))
            return leases
        finally:
            if is_round and not is_next:
                await self._hear_of_the_rest(may_claim=may_claim)

    def seconds_until_next(self, slots: int, in_hand: int) -> float:
        """Seconds until such a claim may bring something again, unless woken."""
        if (self._candidates or self._suspects) and self._may_claim(slots, in_hand):
            return 0.0
        seconds, until_trial = self._rounds.seconds_until_due, self._gate.seconds_until_trial
        return min(seconds, until_trial) if until_trial else seconds

    def _may_claim(self, slots: int, in_hand: int) -> bool:
        allowed = self._gate.allowed()
        trial_is_out = allowed.is_trial and self._trial is not None
        must_wait = trial_is_out or self._suspects.hold_up(in_hand)
        return slots > 0 and bool(allowed.tasks) and not must_wait

    async def _claim(self, slots: int, in_hand: int) -> list[Lease]:
        if self._suspects.hold_up(in_hand):
            return []
        allowed = self._gate.allowed()
        if self._suspects and allowed.tasks:
            return await self._claim_suspect(allowed.tasks)
        if allowed.is_trial:
            return await self._claim_trial(min(slots, self._gate.wanted_for_trial), allowed.tasks)
        if allowed.tasks > self._tasks:
            # What could not be claimed until now may wait in events that were looked at.
            self._rounds.restart()
            await self._look()
        self._tasks = allowed.tasks
        if not allowed.tasks:
            return []
        event_ids, each = self._candidates.take(slots)
        return await self._ask(event_ids, each, allowed.tasks) if event_ids else []

    async def _look(self) -> bool:
        """Once a second: what nobody gave notice of. Whether it was time for it."""
        if self._rounds.seconds_until_due > 0:
            return False
        for event_id in await self._rounds.turn():
            self._candidates.add(event_id)
        if self._clock() >= self._ask_blocked_at:
            self._ask_blocked_at = self._clock() + _BLOCKED_SECONDS
            self._candidates.add_blocked()
        return True

    async def _hear_of_the_rest(self, *, may_claim: bool) -> None:
        """Which engine keeps the events with bookings of ours that were not claimed from.

        Nothing may be claimed for minutes (a breaker is open, all slots are busy), or an event
        waits for its turn. A new engine must be told of the bookings all the same, and soon:
        after a few seconds it is believed when it says that all is sold.
        """
        event_ids = [
            name for name in self._recall.events if not may_claim or name in self._candidates
        ]
        answers = await asyncio.gather(
            *(
                self._queue.claim(name, self._worker_id, 0, _NO_TASKS, suspects=False)
                for name in event_ids
            ),
            return_exceptions=True,
        )
        for event_id, answer in zip(event_ids, answers, strict=True):
            if isinstance(answer, Claimed):
                await self._tell(event_id, answer.engine)
            elif not isinstance(answer, EngineUnavailable):  # which is asked again in a second
                self._defect(event_id, answer)

    async def _claim_trial(self, most: int, tasks: frozenset[Task]) -> list[Lease]:
        """Claim one task that shows whether the peer is back, and no more until it has ended."""
        while most > 0 and self._trial is None and self._candidates:
            event_ids, _ = self._candidates.take(1)
            leases = await self._ask(event_ids, most, tasks)
            if leases:
                self._trial = self._gate.choose_trial(leases)
                await self._hand_back([lease for lease in leases if lease is not self._trial])
                return [self._trial]
        return []

    async def _claim_suspect(self, tasks: frozenset[Task]) -> list[Lease]:
        """Claim one suspect, unless other workers have them all."""
        while self._suspects:
            leases = await self._ask([self._suspects.take()], 1, tasks, suspects=True)
            if leases:
                for event_id in self._suspects.taken(leases[0]):
                    self._candidates.add(event_id)
                return leases
        return []

    async def _ask(
        self,
        event_ids: Sequence[str],
        each: int,
        tasks: frozenset[Task],
        *,
        suspects: bool = False,
    ) -> list[Lease]:
        """The leases of one round trip.

        Each event is asked for by itself (they travel together all the same), so that what one
        answers is not lost with what another doesn't.
        """
        answers = await asyncio.gather(
            *(
                self._queue.claim(event_id, self._worker_id, each, tasks, suspects=suspects)
                for event_id in event_ids
            ),
            return_exceptions=True,
        )
        leases: list[Lease] = []
        away = None
        for event_id, answer in zip(event_ids, answers, strict=True):
            if isinstance(answer, Claimed):
                if suspects:
                    self._candidates.add(event_id)
                else:
                    self._note(event_id, answer, each)
                leases += answer.leases
                await self._tell(event_id, answer.engine)
            elif isinstance(answer, EngineUnavailable):
                self._candidates.add(event_id)
                away = answer
            else:
                self._defect(event_id, answer)
        if away is not None and not leases:
            raise away
        return leases

    def _defect(self, event_id: str, error: BaseException) -> None:
        """One event that can't be claimed from must not keep the others from it."""
        _log.error("a claim failed", event_id=event_id, exc_info=error)
        self._failed.inc()

    async def _tell(self, event_id: str, engine: str) -> None:
        try:
            if engine:
                await self._recall.hear(event_id, engine)
        except EngineUnavailable as error:
            # The leases at hand must not be lost for it, and the next claim tells it again.
            _log.warning("bookings could not be recalled", event_id=event_id, why=str(error))
        except Exception as error:  # noqa: BLE001 - logged and counted; nor for a defect of it
            self._defect(event_id, error)

    def _note(self, event_id: str, claimed: Claimed, asked: int) -> None:
        is_full = len(claimed.leases) >= asked
        self._candidates.answered(event_id, is_full=is_full, is_blocked=claimed.blocked)
        if claimed.suspects:
            self._suspects.heard_of(event_id)
        if claimed.needs_refresh:
            self._capacity.want(event_id)
        if is_full or claimed.blocked:
            self._capacity.watch(event_id)
