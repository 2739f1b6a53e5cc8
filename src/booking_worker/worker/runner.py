"""Running one leased task to whatever end it comes to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

from booking_worker.domain.errors import EngineUnavailable, Fenced
from booking_worker.domain.model import Lease, Task
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.assignment import Assignment, Outcome
from booking_worker.worker.setbacks import Setbacks

_HAND_BACK_SECONDS: Final = 1.9

_log = get_logger(__name__)

RunTask: TypeAlias = Callable[[Assignment], Awaitable[Outcome]]


class TaskRunner:
    """Runs tasks by their kind; whatever happens in one ends with it, and is counted."""

    def __init__(
        self,
        queue: BookingQueue,
        tasks: Mapping[Task, RunTask],
        setbacks: Setbacks,
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._tasks = tasks
        self._setbacks = setbacks
        self._metrics = metrics
        self._durations = {task: metrics.processing_duration.labels(task.value) for task in Task}
        self._outcomes = {
            (task, outcome): metrics.items_processed.labels(task.value, outcome.value)
            for task in Task
            for outcome in Outcome
        }

    async def run(self, work: Assignment) -> None:
        """Run the task until it is settled or its lease ends; handed back when cancelled.

        Raises nothing.
        """
        lease = work.lease
        began = time.perf_counter()
        try:
            outcome = await work.bounded(self._tasks[lease.task])
        except Fenced:
            outcome = self._fenced(lease, unsure=work.unsure)
        except TimeoutError:
            outcome = self._let_go(work)
        except asyncio.CancelledError:
            outcome = await self._stopped(work, asked=work.asked)
        except Exception:  # noqa: BLE001 - logged, counted and retried
            _log.exception("a task crashed", **_facts(lease))
            self._metrics.errors.labels("task").inc()
            outcome = await self._after_crash(work)
        if outcome is Outcome.RETRY:
            self._metrics.retries.labels(lease.task.value).inc()
        self._durations[lease.task].observe(time.perf_counter() - began)
        self._outcomes[lease.task, outcome].inc()
        _log.debug("task ended", outcome=outcome.value, **_facts(lease))

    async def hand_back(self, leases: Sequence[Lease]) -> None:
        """Give back leases that nothing was done under, at once. Raises nothing."""
        outcomes = await asyncio.gather(*(self._hand_back(lease, asked=False) for lease in leases))
        for lease, outcome in zip(leases, outcomes, strict=True):
            self._outcomes[lease.task, outcome].inc()

    async def _stopped(self, work: Assignment, *, asked: bool) -> Outcome:
        # An outcome that was on its way may have arrived, and ended the lease itself.
        unsure = work.unsure or work.settling
        return await self._hand_back(work.lease, asked=asked, unsure=unsure)

    async def _hand_back(self, lease: Lease, *, asked: bool, unsure: bool = False) -> Outcome:
        try:
            async with asyncio.timeout(_HAND_BACK_SECONDS):
                await self._queue.hand_back(lease, asked=asked)
        except Fenced:
            return self._fenced(lease, unsure=unsure)
        except (EngineUnavailable, TimeoutError) as error:
            _log.warning(
                "could not hand back; its lease will end", why=repr(error), **_facts(lease)
            )
            return Outcome.LET_GO
        return Outcome.HANDED_BACK

    async def _after_crash(self, work: Assignment) -> Outcome:
        """A defect of ours is retried as an error is, so that it ends as a dead letter."""

        async def retry(work: Assignment) -> Outcome:
            return await self._setbacks.retry(work, "an internal error")

        try:
            return await work.bounded(retry)
        except Fenced:
            return self._fenced(work.lease, unsure=work.unsure)
        except TimeoutError:
            return self._let_go(work)
        except asyncio.CancelledError:
            return await self._stopped(work, asked=True)
        except Exception:  # noqa: BLE001 - logged, counted and retried
            _log.exception("a task that crashed could not be settled", **_facts(work.lease))
            return Outcome.LET_GO

    def _fenced(self, lease: Lease, *, unsure: bool) -> Outcome:
        if unsure:
            # Most likely by itself: the engine did what it was told and its answer was lost.
            _log.info("settled before its answer came, or fenced", **_facts(lease))
        else:
            self._metrics.fenced.inc()
            _log.warning("fenced: the lease had ended", **_facts(lease))
        return Outcome.FENCED

    def _let_go(self, work: Assignment) -> Outcome:
        self._metrics.errors.labels("lease_ended").inc()
        _log.error("the lease ended before the task did", **_facts(work.lease))
        return Outcome.LET_GO


def _facts(lease: Lease) -> dict[str, str | int]:
    return {
        "task": lease.task.value,
        "item_id": lease.item_id,
        "event_id": lease.event_id,
        "token": lease.token,
    }
