"""The worker slots of this replica: claiming tasks, running them, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Lease, Task
from booking_worker.peers.booking import BookingClient
from booking_worker.peers.ticket import TicketClient
from booking_worker.queue.booking_queue import BookingQueue, Claimed
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.assignment import Assignment
from booking_worker.worker.candidates import Candidates
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.confirm import Confirm
from booking_worker.worker.gate import ALL_TASKS, Gate
from booking_worker.worker.heartbeat import Heartbeat
from booking_worker.worker.release import Release
from booking_worker.worker.reserve import Reserve
from booking_worker.worker.rounds import Rounds
from booking_worker.worker.runner import RunTask, TaskRunner
from booking_worker.worker.setbacks import Setbacks

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 2.0
"""How long an outcome that is known may take to reach the engine after the grace time."""

_log = get_logger(__name__)


class WorkerPool:
    """Runs up to ``slots`` tasks at a time, of all events in turns.

    One loop claims, for all free slots in one round trip, as soon as it is woken; an
    ``asyncio.Task`` exists only while a task is being worked on. ``lease_seconds`` is the length
    of the queue's leases.
    """

    def __init__(
        self,
        queue: BookingQueue,
        capacity: CapacityKeeper,
        booking: BookingClient,
        ticket: TicketClient | None,
        metrics: Metrics,
        *,
        worker_id: str,
        slots: int,
        lease_seconds: float,
        retry_interval_seconds: float,
        grace_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        setbacks = Setbacks(queue, retry_interval_seconds)
        tasks: dict[Task, RunTask] = {
            Task.RESERVE: Reserve(queue, booking, capacity, setbacks).run,
            Task.CONFIRM: Confirm(queue, booking, setbacks).run,
            Task.RELEASE: Release(queue, booking, ticket, capacity, setbacks).run,
        }
        self._runner = TaskRunner(queue, tasks, setbacks, metrics)
        self._gate = Gate(booking.breaker, ticket.breaker if ticket else None)
        self._capacity = capacity
        self._metrics = metrics
        self._worker_id = worker_id
        self._grace_seconds = grace_seconds
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._heartbeat = Heartbeat(queue, worker_id, slots)
        self._candidates = Candidates()
        self._rounds = Rounds(queue.events, clock=clock)
        self._running: dict[asyncio.Task[None], Assignment] = {}
        self._trial: asyncio.Task[None] | None = None
        self._tasks = ALL_TASKS
        self._signal = asyncio.Event()
        self._stopping = False
        self._dispatching: asyncio.Task[None] | None = None
        self._answered_at: float | None = None
        self._progress_at = clock()
        self.slots = slots
        self._engine_is_up = True
        metrics.worker_slots.set(slots)
        metrics.worker_slots_busy.set_function(lambda: len(self._running))

    # --- how it goes --------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """Tasks that are being worked on now."""
        return len(self._running)

    @property
    def live_slots(self) -> int:
        """Slots that live over all replicas."""
        return self._heartbeat.live_slots

    @property
    def waits_for(self) -> str:
        """The peer that must be back before anything is claimed; empty when none."""
        return self._gate.waits_for

    def seconds_since_claim(self) -> float | None:
        """Since the engine last answered what this pool asked it for; None: never yet."""
        return None if self._answered_at is None else self._clock() - self._answered_at

    def stalled_for_seconds(self) -> float:
        """How long there has been something to claim while nothing was claimed and nothing ended.

        0 as long as nothing is known to wait to be claimed.
        """
        return self._clock() - self._progress_at if self._candidates else 0.0

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to claim."""
        if self._dispatching is None:
            self._stopping = False
            await self._heartbeat.start()
            self._dispatching = asyncio.create_task(self._dispatch_for_ever())

    async def stop(self) -> None:
        """Claim no more, finish what runs or hand it back, and return when nothing is left.

        What runs has ``grace_seconds`` to end; what doesn't is handed back at once then, and
        another worker gets it without waiting for its lease to end. May be called again.
        """
        grace_ends = self._clock() + self._grace_seconds
        self._stopping = True
        self._signal.set()
        dispatching, self._dispatching = self._dispatching, None
        if dispatching is not None:
            # Not cancelled: what a claim under way brings must be handed back.
            await asyncio.wait([dispatching])
        await self._heartbeat.stop()
        await self._wait_for_running(grace_ends - self._clock())
        for task, work in list(self._running.items()):
            if not work.settling:
                task.cancel()
        await self._wait_for_running(_SETTLE_SECONDS)
        for task in list(self._running):
            task.cancel()
        await self._wait_for_running(_SETTLE_SECONDS)

    async def _wait_for_running(self, seconds: float) -> None:
        if self._running:
            await asyncio.wait(list(self._running), timeout=max(0.0, seconds))

    def wake(self, event_id: str) -> None:
        """Something of this event may be claimed; of any, when empty. Cheap, and never blocks."""
        if event_id:
            self._add(event_id)
        else:
            self._rounds.restart()
        self._signal.set()

    # --- claiming -----------------------------------------------------------------------------

    async def run_once(self) -> float:
        """Claim what may be claimed now, in one round trip; seconds until to look again unwoken.

        Raises EngineUnavailable.
        """
        await self._look()
        allowed = self._gate.allowed()
        if not allowed.is_trial:
            if allowed.tasks > self._tasks:
                # What could not be claimed until now may wait in events that were looked at.
                self._rounds.restart()
                await self._look()
            self._tasks = allowed.tasks
        free = self.slots - len(self._running)
        if allowed.is_trial:
            await self._claim_trial(min(free, self._gate.wanted_for_trial), allowed.tasks)
        elif allowed.tasks and free > 0:
            event_ids, each = self._candidates.take(free)
            await self._claim(event_ids, each, allowed.tasks)
        self._answered_at = self._clock()
        if not self._candidates:
            self._progress_at = self._answered_at
        elif self._can_go_on():
            return 0.0
        seconds = self._rounds.seconds_until_due
        until_trial = self._gate.seconds_until_trial
        return min(seconds, until_trial) if until_trial > 0 else seconds

    def _can_go_on(self) -> bool:
        allowed = self._gate.allowed()
        if not allowed.tasks or len(self._running) >= self.slots:
            return False
        return not allowed.is_trial or self._trial is None

    async def _look(self) -> None:
        """Once a second: what nobody gave notice of."""
        if self._rounds.seconds_until_due > 0:
            return
        for event_id in await self._rounds.turn():
            self._add(event_id)
        self._candidates.add_blocked()

    def _add(self, event_id: str) -> None:
        if not self._candidates:
            self._progress_at = self._clock()
        self._candidates.add(event_id)

    async def _claim(self, event_ids: Sequence[str], each: int, tasks: frozenset[Task]) -> None:
        claimed_at = asyncio.get_running_loop().time()
        leases = await self._ask(event_ids, each, tasks)
        if self._stopping:
            await self._runner.hand_back(leases)
            return
        for lease in leases:
            self._run(lease, claimed_at)

    async def _claim_trial(self, most: int, tasks: frozenset[Task]) -> None:
        """Claim one task that shows whether the peer is back, and no more until it has ended."""
        while most > 0 and self._trial is None and self._candidates:
            event_ids, _ = self._candidates.take(1)
            claimed_at = asyncio.get_running_loop().time()
            leases = await self._ask(event_ids, most, tasks)
            if not leases:
                continue
            if self._stopping:
                await self._runner.hand_back(leases)
                return
            chosen = self._gate.choose_trial(leases)
            self._trial = self._run(chosen, claimed_at)
            await self._runner.hand_back([lease for lease in leases if lease is not chosen])

    async def _ask(
        self, event_ids: Sequence[str], each: int, tasks: frozenset[Task]
    ) -> list[Lease]:
        """The leases of one round trip.

        Each event is asked for by itself (they travel together all the same), so that what one
        answers is not lost with what another doesn't.
        """
        answers = await asyncio.gather(
            *(self._queue.claim(event_id, self._worker_id, each, tasks) for event_id in event_ids),
            return_exceptions=True,
        )
        leases: list[Lease] = []
        away = None
        for event_id, answer in zip(event_ids, answers, strict=True):
            if isinstance(answer, Claimed):
                self._note(event_id, answer, each)
                leases += answer.leases
            elif isinstance(answer, EngineUnavailable):
                self._candidates.add(event_id)
                away = answer
            else:
                # One event that can't be claimed from must not keep the others from it.
                _log.error("a claim failed", event_id=event_id, exc_info=answer)
                self._metrics.errors.labels("claim").inc()
        if away is not None and not leases:
            raise away
        return leases

    def _note(self, event_id: str, claimed: Claimed, asked: int) -> None:
        is_full = len(claimed.leases) >= asked
        self._candidates.answered(event_id, is_full=is_full, is_blocked=claimed.blocked)
        if claimed.leases:
            self._progress_at = self._clock()
        if claimed.needs_refresh:
            self._capacity.want(event_id)
        if is_full or claimed.blocked:
            self._capacity.watch(event_id)

    # --- running ------------------------------------------------------------------------------

    def _run(self, lease: Lease, claimed_at: float) -> asyncio.Task[None]:
        work = Assignment(self._queue, lease, self._lease_seconds, claimed_at)
        task = asyncio.get_running_loop().create_task(self._runner.run(work))
        self._running[task] = work
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        work = self._running.pop(task)
        if task is self._trial:
            self._trial = None
        self._candidates.add_if_blocked(work.lease.event_id)
        self._progress_at = self._clock()
        self._signal.set()

    async def _dispatch_for_ever(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping:
            try:
                seconds = await self.run_once()
                self._engine_is(up=True)
                pause = _FIRST_PAUSE_SECONDS
            except EngineUnavailable as error:
                self._engine_is(up=False, why=str(error))
                seconds, pause = pause, min(pause * 2, _LONGEST_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001 - logged; claiming must go on
                _log.exception("the dispatcher failed")
                self._metrics.errors.labels("dispatcher").inc()
                seconds = _LONGEST_PAUSE_SECONDS
            if seconds > 0:
                await self._rest(seconds)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._signal.wait()
        except TimeoutError:
            pass
        self._signal.clear()

    def _engine_is(self, *, up: bool, why: str = "") -> None:
        if up is self._engine_is_up:
            return
        self._engine_is_up = up
        if up:
            _log.info("the engine answers again")
        else:
            self._metrics.errors.labels("engine").inc()
            _log.warning("the engine does not answer; trying again", why=why)
