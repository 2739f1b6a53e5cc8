"""Keeping the queue's idea of what is left true to the Ticket Service's."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from booking_worker.domain.errors import EngineUnavailable, PeerError, PeerRefused
from booking_worker.peers.breaker import Breaker, BreakerState
from booking_worker.peers.ticket import TicketClient
from booking_worker.queue.booking_queue import BookingQueue, CapacityQuestion
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics
from booking_worker.worker.errands import REPEAT_SECONDS, Errands
from booking_worker.worker.housekeeping import Housekeeping
from booking_worker.worker.opening import Opening

_SHORTEST_SPACING_SECONDS: Final = 0.05
_GATHER_SECONDS: Final = 0.01
_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 5.0
_MOST_AT_ONCE: Final = 8
_FORGET_SECONDS: Final = 60.0

_log = get_logger(__name__)


@dataclass(slots=True)
class _Event:
    """What is known of the refreshes of one event; times are on the keeper's clock."""

    wanted: bool = False
    must_ask: bool = False
    """Somebody waits for what the Ticket Service says to the next refresh."""
    is_watched: bool = False
    not_before: float = -math.inf
    put_off_until: float = math.inf
    """When to ask although nothing moved, as it was wanted."""
    asked_at: float = -math.inf
    spacing: float = _SHORTEST_SPACING_SECONDS
    seen: tuple[int, int | None] | None = None
    """The books' moves and the answer of the last refresh."""
    failures: int = 0
    trouble: str = ""
    refreshes: int = 0
    """The answers that all replicas had taken at the last refresh of this one."""
    touched_at: float = -math.inf
    refreshing: asyncio.Task[int | None] | None = field(default=None, repr=False)


class CapacityKeeper:
    """Refreshes the capacity of events: on demand, and regularly while somebody waits there.

    One refresh per event is under way at a time, a few events in parallel. Refreshes that
    change nothing come ever more rarely, down to one in ``refresh_seconds``; anything that moves
    in the books makes them frequent again. While the Ticket Service does not answer, admission
    goes on with what the engine knows, and is asked again as soon as its breaker allows. While
    nobody is to be admitted to any event, no capacity is set.

    Regularly only the replica refreshes that looks after the event, and it is asked to when
    somebody else wants a refresh. When it doesn't answer, or none is known, whoever wants one
    does it: two at once do no harm (see set_capacity.lua). So does one whose breaker waits for
    a trial.

    ``ticket`` is None where there is no Ticket Service: then capacity is unlimited.
    """

    def __init__(
        self,
        queue: BookingQueue,
        house: Housekeeping,
        ticket: TicketClient | None,
        metrics: Metrics,
        refresh_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._house = house
        self._ticket = ticket
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._errands = Errands(queue, house, refresh_seconds, clock)
        self._failed = metrics.errors.labels("capacity_refresh")
        self._events: dict[str, _Event] = {}
        self._opening = Opening(queue)
        self._turnstile = asyncio.Semaphore(_MOST_AT_ONCE)
        self._signal = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        house.listen(self._on_news)

    @property
    def judge(self) -> Breaker | None:
        """The breaker of the Ticket Service, which knows what is left; None where there is none."""
        return self._ticket.breaker if self._ticket else None

    @property
    def trouble(self) -> str:
        """Why capacity can't be refreshed now, for health; empty when all is well."""
        troubles = [(name, event.trouble) for name, event in self._events.items() if event.trouble]
        if not troubles:
            return ""
        name, trouble = troubles[0]
        more = f" (and of {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        return f"the capacity of {name}{more} could not be refreshed: {trouble}"

    def want(self, event_id: str) -> None:
        """Have an event refreshed soon."""
        event = self._event(event_id)
        if not event.wanted:
            event.wanted = True
            self._signal.set()

    def wanted_elsewhere(self, event_id: str) -> None:
        """Another replica wants a refresh: have it done soon, if this one looks after the event."""
        if self._house.is_ours(event_id):
            self.want(event_id)

    def watch(self, event_id: str) -> None:
        """Somebody waits in this event: have it refreshed regularly, until nobody does."""
        event = self._event(event_id)
        if not event.is_watched:
            event.is_watched = True
            self._signal.set()

    async def left(self, event_id: str) -> int | None:
        """How many tickets are left by an answer to a question asked after this call.

        The capacity is refreshed by it. None without a Ticket Service. Callers that come
        together share one question.

        Raises:
            PeerError: the Ticket Service did not answer.
            EngineUnavailable.
        """
        event = self._event(event_id)
        too_early = event.refreshing
        if too_early is not None:
            # Whoever begins the next one: else it may be one that asks nobody.
            event.must_ask = True
            await asyncio.wait([too_early])
        if event.refreshing is None:
            self._begin(event_id, event, must_ask=True)
        assert event.refreshing is not None  # noqa: S101 - just begun, or by another caller
        return await asyncio.shield(event.refreshing)

    async def start(self) -> None:
        """Begin to keep."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_for_ever())

    async def stop(self) -> None:
        """Keep no more. May be called again."""
        keeping, self._keeping = self._keeping, None
        under_way = [event.refreshing for event in self._events.values() if event.refreshing]
        ending = [*under_way, keeping] if keeping is not None else under_way
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def run_once(self) -> float:
        """Do the refreshes that are due; seconds until the next is, infinite for none."""
        self._begin_due()
        under_way = [event.refreshing for event in self._events.values() if event.refreshing]
        if under_way:
            await asyncio.wait(under_way)
        return self._begin_due(only_look=True)

    async def _keep_for_ever(self) -> None:
        while True:
            seconds = self._begin_due()
            try:
                async with asyncio.timeout(None if seconds == math.inf else seconds):
                    await self._signal.wait()
            except TimeoutError:
                pass
            self._signal.clear()

    def _begin_due(self, *, only_look: bool = False) -> float:
        """Begin the refreshes that are due; seconds until the next one will be."""
        now = self._clock()
        soonest = math.inf
        for event_id, event in list(self._events.items()):
            if event.refreshing is not None:
                continue
            regularly_at = self._regularly_at(event_id, event)
            due_at = self._due_at(event, regularly_at)
            if due_at <= now and not only_look:
                self._begin(event_id, event, must_ask=regularly_at <= now)
            elif due_at < math.inf:
                soonest = min(soonest, due_at - now)
            elif now - max(event.asked_at, event.touched_at) > _FORGET_SECONDS:
                del self._events[event_id]
        return max(0.0, soonest)

    def _on_news(self, event_id: str) -> None:
        """If it is looked after here now, what another replica was asked for is done here."""
        event = self._events.get(event_id)
        if event is not None and self._house.is_ours(event_id):
            event.wanted |= self._errands.take_back(event_id)
            self._signal.set()

    def _regularly_at(self, event_id: str, event: _Event) -> float:
        """When it is to be asked whatever happens; infinite where that is left to another."""
        if event.is_watched and self._house.is_ours(event_id):
            return event.asked_at + self._refresh_seconds
        return math.inf

    def _due_at(self, event: _Event, regularly_at: float) -> float:
        due_at = event.not_before if event.wanted else event.put_off_until
        return min(due_at, max(event.not_before, regularly_at))

    def _event(self, event_id: str) -> _Event:
        event = self._events.get(event_id)
        if event is None:
            event = self._events[event_id] = _Event()
        event.touched_at = self._clock()
        return event

    def _begin(self, event_id: str, event: _Event, *, must_ask: bool) -> None:
        must_ask |= event.must_ask
        event.wanted = event.must_ask = False
        task = asyncio.create_task(self._refresh(event_id, event, must_ask=must_ask))
        event.refreshing = task

        def ended(task: asyncio.Task[int | None]) -> None:
            event.refreshing = None
            self._signal.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                self._note_failure(event_id, event, error)

        task.add_done_callback(ended)

    async def _refresh(self, event_id: str, event: _Event, *, must_ask: bool) -> int | None:
        if must_ask:
            # Refusals come by the dozen, and those of a moment can share one question.
            await asyncio.sleep(event.asked_at + _GATHER_SECONDS - self._clock())
        async with self._turnstile:
            event.not_before = self._clock() + _SHORTEST_SPACING_SECONDS
            event.put_off_until = math.inf
            question = await self._queue.ask_capacity(event_id)
            if event.refreshes != question.refreshes:
                # By another replica, maybe: then it is no trouble any more that this one can't.
                self._note_success(event_id, event)
            event.refreshes = question.refreshes
            must_ask |= self._is_trial
            waits = not must_ask and await self._may_wait(event_id, event, question)
            may_set = not waits and await self._opening.allows(event_id, question)
            if not may_set and not must_ask:
                event.put_off_until = min(event.put_off_until, self._trial_at())
                return None
            event.asked_at = self._clock()
            left = None if self._ticket is None else await self._ticket.available(event_id)
            if not may_set:
                return left
            waiting = await self._queue.set_capacity(event_id, question, left)
            event.not_before = self._clock() + _SHORTEST_SPACING_SECONDS
            if waiting is None:
                event.wanted = True
                return left
        seen = (question.moves, left)
        changed = event.seen != seen
        event.spacing = (
            _SHORTEST_SPACING_SECONDS if changed else min(event.spacing * 2, self._refresh_seconds)
        )
        event.seen = seen
        self._note_success(event_id, event)
        event.is_watched = waiting > 0
        if waiting and left == 0:
            await self._tell_sold_out(event_id, event)
        return left

    async def _may_wait(self, event_id: str, event: _Event, question: CapacityQuestion) -> bool:
        """Whether this replica need not ask now; then when it is to look again is noted."""
        left_until = await self._errands.leave(event_id, question)
        if left_until is not None:
            event.put_off_until = left_until
            event.not_before = self._clock() + REPEAT_SECONDS
            return True
        again_at = event.asked_at + event.spacing
        unmoved = event.seen is not None and event.seen[0] == question.moves
        if unmoved and self._clock() < again_at:
            # Only others could have changed what is left: asking again can wait a little.
            event.put_off_until = again_at
            return True
        return False

    @property
    def _is_trial(self) -> bool:
        """Whether a question would be the trial for which the breaker of this replica waits.

        Whoever else asks closes no breaker but its own, and this one's holds up the releases.
        """
        judge = self.judge
        return judge is not None and judge.state is not BreakerState.CLOSED and judge.allows

    def _trial_at(self) -> float:
        """When to look again whether it would; infinite while the breaker is closed."""
        judge = self.judge
        if judge is None or judge.state is BreakerState.CLOSED:
            return math.inf
        return self._clock() + max(judge.seconds_until_trial, REPEAT_SECONDS)

    async def _tell_sold_out(self, event_id: str, event: _Event) -> None:
        """Tell everybody who waits, if it is certain that nothing can come back."""
        waiting = await self._queue.sell_out(event_id)
        while waiting:
            waiting = await self._queue.sell_out(event_id, goes_on=True)
        if waiting == 0:
            event.is_watched = False

    def _note_success(self, event_id: str, event: _Event) -> None:
        if event.failures:
            _log.info("capacity is refreshed again", event_id=event_id)
        event.failures = 0
        event.trouble = ""

    def _note_failure(self, event_id: str, event: _Event, error: BaseException) -> None:
        """Ask again after a while; one who was refused an answer only when asked to again."""
        if not isinstance(error, (PeerError, EngineUnavailable)):
            _log.error("a refresh of capacity failed", event_id=event_id, exc_info=error)
        elif event.failures == 0:
            _log.warning("capacity could not be refreshed", event_id=event_id, why=str(error))
        self._failed.inc()
        event.failures += 1
        event.trouble = str(error)
        event.wanted = not isinstance(error, PeerRefused)
        event.is_watched = False
        pause = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(event.failures, 10), self._longest_backoff)
        if self._ticket is not None:
            pause = max(pause, self._ticket.breaker.seconds_until_trial)
        event.not_before = self._clock() + pause

    @property
    def _longest_backoff(self) -> float:
        return min(_LONGEST_BACKOFF_SECONDS, self._refresh_seconds)
