"""Which events are alive, and which of them this replica looks after."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue.booking_queue import BookingQueue, Look
from booking_worker.queue.changes import Hold
from booking_worker.queue.lock import TTL_SECONDS, Redlock, Vote
from booking_worker.telemetry.logs import get_logger
from booking_worker.worker.rounds import Rounds

_LINGER_SECONDS: Final = 10.0
_KEEP_SECONDS: Final = TTL_SECONDS / 3
_SHORTEST_SECONDS: Final = 0.02
_SPLIT_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0
_NO_EVENT: Final = ""
"""Whose lock is the turn to sweep what is over."""

_log = get_logger(__name__)


class Housekeeping:
    """Holds the locks of as many events that are alive as it can get.

    An event is alive while somebody there has a deadline or a task, or something has happened
    that nobody was told of. One that is over has no lock: hundreds of them cost next to nothing.

    What rests on it: who tells people what happened, who refreshes capacity regularly, who
    sweeps. While a majority of the lock nodes is away, nobody does; see docs/decisions/locking.md
    for what goes on all the same.
    """

    def __init__(
        self,
        queue: BookingQueue,
        lock: Redlock,
        *,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._lock = lock
        self._clock = clock
        self._rand = rand
        self._rounds = Rounds(queue.events, clock=clock)
        self._alive: dict[str, float] = {}
        self._try_at: dict[str, float] = {}
        self._holds: dict[str, Hold] = {}
        self._elsewhere: dict[str, float] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._signal = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False

    # --- what others want to know ---------------------------------------------------------------

    @property
    def alive(self) -> Collection[str]:
        """The events in which something may be to do, whoever looks after them."""
        return self._alive.keys()

    def is_ours(self, event_id: str) -> bool:
        """Whether this replica looks after the event at this moment."""
        hold = self._holds.get(event_id)
        return hold is not None and self._clock() < hold.until

    def is_elsewhere(self, event_id: str) -> bool:
        """Whether another replica is known to look after it."""
        return self._clock() < self._elsewhere.get(event_id, 0.0)

    def held(self) -> dict[str, Hold]:
        """The events that this replica looks after at this moment."""
        now = self._clock()
        return {event_id: hold for event_id, hold in self._holds.items() if now < hold.until}

    def listen(self, on_news: Callable[[str], None]) -> None:
        """Have this called with each event that comes alive, and that is looked after here."""
        self._listeners.append(on_news)

    # --- what others tell -----------------------------------------------------------------------

    def wake(self, event_id: str) -> None:
        """Something happens in this event; maybe in any, when empty."""
        if event_id:
            self.want(event_id)
        else:
            self._rounds.restart()
            self._signal.set()

    def want(self, event_id: str) -> None:
        """This event is alive, for some time at least."""
        is_new = event_id not in self._alive
        self._alive[event_id] = self._clock() + _LINGER_SECONDS
        if is_new:
            self._try(event_id)
            self._tell(event_id)

    def freed(self, event_ids: Iterable[str]) -> None:
        """Nobody looks after these events any more."""
        for event_id in event_ids:
            self._elsewhere.pop(event_id, None)
            self.want(event_id)
            self._try(event_id)

    def overtaken(self, event_id: str) -> None:
        """Another replica has taken this event over: the hold is worth nothing."""
        if self._holds.pop(event_id, None) is not None:
            _log.warning("another replica has taken over", event_id=event_id)
            self.want(event_id)
            self._try(event_id)

    async def is_our_turn(self, seconds: float) -> bool:
        """Whether to do now what one replica is to do once in so many seconds."""
        (vote,) = await self._lock.hold([_NO_EVENT], seconds)
        if vote.is_split:
            await self._lock.release([_NO_EVENT])
        return vote.until is not None

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take locks and to keep them."""
        if self._keeping is None:
            self._stopping = False
            self._keeping = asyncio.create_task(self._keep_for_ever())

    async def stop(self) -> None:
        """Let go of everything, so that other replicas need not wait. May be called again."""
        await self._end()
        await self._let_go()

    async def hand_over(self) -> bool:
        """Take no more events, and let go of all.

        True when some had to be taken again, as something had happened there that nobody was
        told of: then it is to be told, and this to be called again.

        Raises EngineUnavailable.
        """
        await self._end()
        await self._let_go()
        looks, away = await self._look_at(await self._queue.events())
        try:
            await self._take_from_the_dead([name for name, look in looks.items() if look.untold])
        except EngineUnavailable as error:
            away = error
        if away is not None and not self._holds:
            raise away
        return bool(self._holds)

    async def _take_from_the_dead(self, event_ids: Sequence[str]) -> None:
        """Take what can be had; of an event whose holder keeps its lock, that one will tell."""
        gives_up_at = self._clock() + TTL_SECONDS + _SPLIT_SECONDS
        lapses: dict[str, float] = {}
        while event_ids and self._clock() < gives_up_at:
            await self._hold(event_ids)
            if self._holds:
                return
            for event_id in event_ids:
                lapses.setdefault(event_id, self._elsewhere.get(event_id, float("inf")))
            event_ids = [
                event_id
                for event_id in event_ids
                if self._elsewhere.get(event_id, 0.0) < lapses[event_id] + _SPLIT_SECONDS
            ]
            await asyncio.sleep(_SPLIT_SECONDS)

    async def run_once(self) -> float:
        """Take and keep what is due; seconds until something may be again.

        Raises EngineUnavailable; what was due then still is.
        """
        away = None
        # Locks are kept first: a look at a node that hangs takes most of the time that they last.
        for step in (self._hold_what_is_due, self._look_around, self._hold_what_is_due):
            try:
                await step()
            except EngineUnavailable as error:
                # One node of a Cluster is away, maybe, and the events of the others go on.
                away = error
        if away is not None:
            raise away
        soonest = min((*self._try_at.values(), *self._alive.values()), default=float("inf"))
        return max(_SHORTEST_SECONDS, min(soonest - self._clock(), self._rounds.seconds_until_due))

    async def _keep_for_ever(self) -> None:
        while not self._stopping:
            try:
                seconds = await self.run_once()
            except EngineUnavailable as error:
                # The pool says so, and health.
                _log.debug("housekeeping waits for the engine", why=str(error))
                seconds = _LONGEST_PAUSE_SECONDS
            except Exception:  # noqa: BLE001 - logged; the loop must go on
                _log.exception("housekeeping failed")
                seconds = _LONGEST_PAUSE_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._signal.wait()
            except TimeoutError:
                pass
            self._signal.clear()

    async def _end(self) -> None:
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            # Not cancelled: a lock that is being taken would come after it was let go.
            self._stopping = True
            self._signal.set()
            await keeping

    async def _let_go(self) -> None:
        # Those too that were being taken when it ended.
        held = [name for name in self._alive.keys() | self._holds if not self.is_elsewhere(name)]
        self._holds.clear()
        self._alive.clear()
        self._try_at.clear()
        if held:
            await self._lock.release(held)
            try:
                await self._queue.tell_freed(held)
            except EngineUnavailable as error:
                _log.info("could not tell that events are free; others will see", why=str(error))

    # --- finding out what is alive --------------------------------------------------------------

    async def _look_around(self) -> None:
        """Look at those whose turn it is, and at those that may be over."""
        now = self._clock()
        turn = [name for name in await self._rounds.turn() if name not in self._alive]
        over = [event_id for event_id, until in self._alive.items() if until <= now]
        looks, away = await self._look_at([*turn, *over])
        done: list[str] = []
        for event_id, look in looks.items():
            if look.alive or look.untold:
                self.want(event_id)
            elif self._alive.get(event_id, float("inf")) <= now:  # not woken meanwhile
                done.append(event_id)
        await self._give_up(done)
        if away is not None:
            # What is known to be alive stays so until it is known that it isn't.
            self._rounds.restart()
            raise away

    async def _look_at(
        self, event_ids: Sequence[str]
    ) -> tuple[dict[str, Look], BaseException | None]:
        """How these events are, and why some of them could not be looked at; None: all could."""
        answers = await asyncio.gather(*map(self._queue.look, event_ids), return_exceptions=True)
        looks: dict[str, Look] = {}
        trouble = None
        for event_id, answer in zip(event_ids, answers, strict=True):
            if isinstance(answer, BaseException):
                trouble = answer
            else:
                looks[event_id] = answer
        return looks, trouble

    async def _give_up(self, event_ids: Sequence[str]) -> None:
        for event_id in event_ids:
            del self._alive[event_id]
            self._try_at.pop(event_id, None)
            self._elsewhere.pop(event_id, None)
        held = [event_id for event_id in event_ids if self._holds.pop(event_id, None)]
        if held:
            await self._lock.release(held)

    # --- taking and keeping ---------------------------------------------------------------------

    async def _hold_what_is_due(self) -> None:
        now = self._clock()
        if due := [event_id for event_id, at in self._try_at.items() if at <= now]:
            await self._hold(due)

    async def _hold(self, event_ids: Sequence[str]) -> None:
        votes = await self._lock.hold(event_ids)
        taken: dict[str, float] = {}
        split: list[str] = []
        for event_id, vote in zip(event_ids, votes, strict=True):
            kept = self.is_ours(event_id)
            if vote.until is None:
                self._refused(event_id, vote, is_kept=kept)
                if vote.is_split and not kept:
                    split.append(event_id)
                continue
            self._elsewhere.pop(event_id, None)
            self._try_at[event_id] = self._clock() + _KEEP_SECONDS
            if kept:
                self._holds[event_id] = self._holds[event_id]._replace(until=vote.until)
            else:
                taken[event_id] = vote.until
        if split:
            await self._lock.release(split)
        if taken:
            await self._take_over(taken)

    def _refused(self, event_id: str, vote: Vote, *, is_kept: bool) -> None:
        """Another has the lock, or nobody can have it now: when to try again."""
        if not is_kept:
            self._holds.pop(event_id, None)
        now = self._clock()
        wait = _KEEP_SECONDS
        if vote.lapses_in is not None:
            wait = vote.lapses_in
            self._elsewhere[event_id] = now + vote.lapses_in
        # Those that came at the same time must not come at the same time again.
        self._try_at[event_id] = now + wait + self._rand() * _SPLIT_SECONDS

    async def _take_over(self, taken: dict[str, float]) -> None:
        """Get a token for each; with an earlier one, nothing could be told apart."""
        tokens = await asyncio.gather(*map(self._queue.take_over, taken), return_exceptions=True)
        away = None
        for (event_id, until), answer in zip(taken.items(), tokens, strict=True):
            if isinstance(answer, BaseException):
                self._holds.pop(event_id, None)
                self._try(event_id)
                away = answer
            elif self._clock() < until:
                self._holds[event_id] = Hold(*answer, until)
                self._tell(event_id)
        if away is not None:
            raise away

    def _try(self, event_id: str) -> None:
        self._try_at[event_id] = self._clock()
        self._signal.set()

    def _tell(self, event_id: str) -> None:
        for on_news in self._listeners:
            on_news(event_id)
