"""The worker slots of this replica: filling them, and leaving nothing behind at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.domain.model import Lease, Task
from booking_worker.peers.booking import BookingClient
from booking_worker.peers.ticket import TicketClient
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.assignment import Assignment
from booking_worker.worker.capacity import CapacityKeeper
from booking_worker.worker.claims import Claims
from booking_worker.worker.confirm import Confirm
from booking_worker.worker.gate import Gate
from booking_worker.worker.heartbeat import Heartbeat
from booking_worker.worker.recall import Recall
from booking_worker.worker.release import Release
from booking_worker.worker.reserve import Reserve
from booking_worker.worker.runner import RunTask, TaskRunner
from booking_worker.worker.setbacks import Setbacks

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 2.0
"""How long an outcome that is known may take to reach the engine after the grace time."""

_log = get_logger(__name__)


class WorkerPool:
    """Runs up to ``slots`` tasks at a time.

    One loop claims, for all free slots at once, as soon as it is woken; an ``asyncio.Task``
    exists only while a task is being worked on. ``lease_seconds`` is the length of the queue's
    leases.
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
        setbacks, recall = Setbacks(queue, retry_interval_seconds), Recall(queue)
        tasks: dict[Task, RunTask] = {
            Task.RESERVE: Reserve(queue, booking, capacity, setbacks, recall).run,
            Task.CONFIRM: Confirm(queue, booking, setbacks).run,
            Task.RELEASE: Release(queue, booking, ticket, capacity, setbacks).run,
        }
        self._runner = TaskRunner(queue, tasks, setbacks, metrics)
        self._gate = Gate(booking.breaker, ticket.breaker if ticket else None)
        self._claims = Claims(
            queue,
            self._gate,
            capacity,
            recall,
            metrics,
            worker_id=worker_id,
            hand_back=self._runner.hand_back,
            clock=clock,
        )
        self._heartbeat = Heartbeat(queue, worker_id, slots)
        self._errors = metrics.errors
        self._lease_seconds = lease_seconds
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._running: dict[asyncio.Task[None], Assignment] = {}
        self._signal = asyncio.Event()
        self._stopping = False
        self._dispatching: asyncio.Task[None] | None = None
        self._engine_is_up = True
        self._answered_at: float | None = None
        self.slots = slots
        metrics.worker_slots.set(slots)
        metrics.worker_slots_busy.set_function(lambda: len(self._running))

    # --- how it goes --------------------------------------------------------------------------

    @property
    def live_slots(self) -> int:
        """Slots that live over all replicas."""
        return self._heartbeat.live_slots

    @property
    def writes_refused(self) -> str:
        """Why the engine did not take the last heartbeat, so takes no joins; empty when it did."""
        return self._heartbeat.refused

    @property
    def waits_for(self) -> str:
        """The peer that must be back before anything is claimed; empty when none."""
        return self._gate.waits_for

    def seconds_since_claim(self) -> float | None:
        """Since the engine last answered what this pool asked it for; None: never yet."""
        return None if self._answered_at is None else self._clock() - self._answered_at

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

    # --- work ---------------------------------------------------------------------------------

    def wake(self, event_id: str) -> None:
        """Something of this event may be claimed; of any, when empty. Cheap, and never blocks."""
        self._claims.wake(event_id)
        self._signal.set()

    async def run_once(self) -> float:
        """Fill the free slots with what may be claimed; seconds until to try again unwoken.

        Raises EngineUnavailable.
        """
        claimed_at = asyncio.get_running_loop().time()
        in_hand = len(self._running)
        leases = await self._claims.claim(self.slots - in_hand, in_hand)
        self._answered_at = self._clock()
        if self._stopping:
            await self._runner.hand_back(leases)
            for lease in leases:
                self._claims.ended(lease)
        else:
            for lease in leases:
                self._begin(lease, claimed_at)
        in_hand = len(self._running)
        return self._claims.seconds_until_next(self.slots - in_hand, in_hand)

    def _begin(self, lease: Lease, claimed_at: float) -> None:
        work = Assignment(self._queue, lease, self._lease_seconds, claimed_at)
        task = asyncio.get_running_loop().create_task(self._runner.run(work))
        self._running[task] = work
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._claims.ended(self._running.pop(task).lease)
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
                self._errors.labels("dispatcher").inc()
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
            self._errors.labels("engine").inc()
            _log.warning("the engine does not answer; trying again", why=why)
