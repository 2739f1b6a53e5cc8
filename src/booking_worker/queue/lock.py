"""The lock of an event: who of several replicas looks after it now, by the Redlock algorithm.

It only elects. Nothing that must not happen twice rests on it; docs/decisions/locking.md.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from booking_worker.domain.errors import EngineUnavailable
from booking_worker.queue import keys, scripts
from booking_worker.queue.routing import runner_for
from booking_worker.telemetry.logs import get_logger

TTL_SECONDS: Final = 3.0
"""For how long a lock is held by one who has died."""
_NODE_PATIENCE_SECONDS: Final = 0.5
_DRIFT: Final = 0.01
_DRIFT_SECONDS: Final = 0.002
"""By how much the clocks of two nodes may differ in a span, and what it takes to expire a key."""

_log = get_logger(__name__)


class Vote(NamedTuple):
    """What the lock nodes said about one event."""

    until: float | None
    """Until when the lock is held here, on the clock that was given; None: it isn't."""
    lapses_in: float | None
    """Seconds until the lock of another lapses, unless it is kept; None: nobody else has it."""
    is_split: bool
    """Some nodes granted it, but too few: they are to be told to let go."""


class Redlock:
    """Holds the locks of events on a majority of ``nodes``, under a word of its own.

    All that is asked together goes to each node in one trip. A node that does not answer within
    half a second counts as one that refused; what it grants late lapses by itself.
    """

    def __init__(
        self,
        nodes: Sequence[Redis | RedisCluster],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` gives seconds that pass also while this process is stopped."""
        self._nodes = [runner_for(node) for node in nodes]
        self._majority = len(nodes) // 2 + 1
        self._clock = clock
        self._owner = secrets.token_hex(16)
        self._hold = scripts.load("locks/hold")
        self._release = scripts.load("locks/release")
        self._silent: set[int] = set()

    async def hold(self, event_ids: Sequence[str], ttl_seconds: float = TTL_SECONDS) -> list[Vote]:
        """Take the locks of these events, or keep them, for ``ttl_seconds`` from now.

        One vote for each, in order; an empty id is the turn to sweep what is over. Nothing is
        raised: a node that fails grants nothing.
        """
        began = self._clock()
        ttl_ms = round(ttl_seconds * 1000)
        answers = await self._ask(self._hold, event_ids, ttl_ms)
        until = began + ttl_seconds * (1 - _DRIFT) - _DRIFT_SECONDS
        return [self._count(votes, until) for votes in zip(*answers, strict=True)]

    async def release(self, event_ids: Sequence[str]) -> None:
        """Let go of these locks on every node that can be reached."""
        await self._ask(self._release, event_ids)

    async def silent(self) -> list[int]:
        """Which of the nodes do not answer now, by their places among them."""
        asked = [node.command(keys.SWEEP_LOCK, "EXISTS", keys.SWEEP_LOCK) for node in self._nodes]
        await asyncio.wait(asked, timeout=_NODE_PATIENCE_SECONDS)
        for answer in asked:
            answer.cancel()  # of those that are still waited for
        return [at for at, answer in enumerate(asked) if answer.cancelled() or answer.exception()]

    def _count(self, votes: Sequence[int | None], until: float) -> Vote:
        granted = sum(vote is not None and vote > 0 for vote in votes)
        if granted >= self._majority:
            return Vote(until if self._clock() < until else None, None, is_split=False)
        refused = sorted(-vote for vote in votes if vote is not None and vote <= 0)
        # Free for all as soon as so many nodes are that they make a majority with the others.
        at = self._majority - granted - 1
        lapses_in = refused[at] / 1000 if len(refused) > at else None
        return Vote(None, lapses_in, is_split=granted > 0)

    async def _ask(
        self, script: scripts.Script, event_ids: Sequence[str], ttl_ms: int = 0
    ) -> list[list[int | None]]:
        """For each node, its answer for each event; None for none."""
        args = script.argv({"owner": self._owner, "ttl_ms": ttl_ms})
        locks = [
            keys.of_event(event_id)["lock"] if event_id else keys.SWEEP_LOCK
            for event_id in event_ids
        ]
        asked = [[node.run(script, [lock], args) for lock in locks] for node in self._nodes]
        everything = [answer for answers in asked for answer in answers]
        if everything:
            await asyncio.wait(everything, timeout=_NODE_PATIENCE_SECONDS)
        return [
            [self._answer(node, answer) for answer in answers] for node, answers in enumerate(asked)
        ]

    def _answer(self, node: int, answer: asyncio.Future[Any]) -> int | None:
        trouble: BaseException = TimeoutError("no answer in time")
        if not answer.done():
            answer.cancel()
        elif (error := answer.exception()) is None:
            if node in self._silent:
                self._silent.discard(node)
                _log.info("a lock node is back", node=node)
            said: int = answer.result()
            return said
        elif isinstance(error, (EngineUnavailable, ResponseError)):
            trouble = error
        else:
            raise error
        if node not in self._silent:
            self._silent.add(node)
            _log.warning("a lock node grants nothing", node=node, why=str(trouble))
        return None
