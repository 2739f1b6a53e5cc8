"""How a method of the queue becomes one script call, and how a script's error becomes ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from booking_worker.domain.errors import (
    BookingWorkerError,
    Fenced,
    ItemNotFound,
    NotYourItem,
    UserHasPlace,
    WrongStatus,
)
from booking_worker.domain.model import Layout, Status
from booking_worker.queue import keys, scripts
from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.lane import NO_WAIT, Taker
from booking_worker.queue.routing import runner_for
from booking_worker.queue.runner import Runner
from booking_worker.queue.scripts import Script

_TOLD: Final = frozenset(
    {"list_event", "join", "cancel", "ask_confirm", "requeue", "discard", "pause", "resume"}
)
"""What somebody outside is told and asks for once: it is acknowledged as REDIS_WAIT_REPLICAS says.

What a worker loses with an engine is done again when its lease ends, with the same keys.
"""

_REMEMBER_EVENT_SECONDS = 60.0
"""listed_before.lua counts on it."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The queue's limits and time spans, from the settings of the same names.

    They go to the scripts as arguments of these names.
    """

    max_size: int
    places_per_user: int
    queue_timeout_ms: int
    payment_timeout_ms: int
    payment_grace_ms: int
    result_ttl_ms: int
    lease_ms: int
    max_retries: int
    max_crashes: int = 3


class Transitions:
    """Runs transitions by name; the methods that callers use are in the classes below it."""

    def __init__(
        self,
        client: Redis | RedisCluster,
        limits: QueueLimits,
        script_overrides: Mapping[str, str] | None = None,
        *,
        acknowledge: Acknowledge = NO_WAIT,
    ) -> None:
        self._client = client
        self._limits = limits
        self._given: dict[str, Any] = asdict(limits) | {"actor": "system"}
        self._runner = self._told = runner_for(client)
        if acknowledge.waits:
            # Ways of their own: while replicas are away, the work and the positions go on.
            self._told = runner_for(client, acknowledge)
        self._remembered: dict[str, float] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self.layout: Layout | None = None
        """The record of the layout as it was read last; None: not yet."""
        self._scripts = {name: scripts.load(name, script_overrides) for name in scripts.names()}

    async def _run(
        self,
        name: str,
        event_id: str,
        *values: str | bytes | int,
        **arguments: str | bytes | int,
    ) -> Any:
        """The answer of the script ``lua/<name>.lua`` for one event.

        Arguments go by the names in its header; what is not given comes from the limits.
        ``values`` are those of the argument of the kind "each", if it has one.
        """
        try:
            return await self._way(name).run(*self._call(name, event_id, values, arguments))
        except ResponseError as error:
            raise _our_error(error, arguments) from error

    def _run_for(
        self,
        name: str,
        event_id: str,
        taker: Taker,
        until: float,
        *values: str | bytes | int,
        **arguments: str | bytes | int,
    ) -> None:
        """As :meth:`_run`, for a script without errors: ``taker`` is told, ``until`` when it ends.

        It leaves before this returns if it is large, and the taker hears the answer at once: a
        turn of a busy event loop takes as long as the engine takes for hundreds of joins.
        """
        self._way(name).run_for(taker, until, *self._call(name, event_id, values, arguments))

    def _way(self, name: str) -> Runner:
        return self._told if name in _TOLD else self._runner

    def _call(
        self,
        name: str,
        event_id: str,
        values: Sequence[str | bytes | int],
        arguments: dict[str, str | bytes | int],
    ) -> tuple[Script, list[str], list[str | bytes | int]]:
        script = self._scripts[name]
        named = keys.of_event(event_id)
        given = self._given | arguments
        given["event_id"] = event_id
        return script, [named[key] for key in script.keys], script.argv(given, *values)

    async def _remember(self, event_id: str, *, anew: bool = False) -> None:
        """List the event among those that have a line: before its first join, and now and then.

        The list has a slot of its own in a Cluster, so this can't be part of the join. ``anew``
        says that the engine may have lost it.
        """
        now = time.monotonic()
        if anew or not self._is_remembered(event_id):
            await self._run("list_event", event_id)
            self._remembered[event_id] = now

    def _is_remembered(self, event_id: str) -> bool:
        listed_at = self._remembered.get(event_id, -_REMEMBER_EVENT_SECONDS)
        return time.monotonic() - listed_at < _REMEMBER_EVENT_SECONDS

    def _listed_lately(self) -> set[str]:
        """The events that were listed from here so lately that the next join would not do it."""
        now = time.monotonic()
        self._remembered = {
            event_id: listed_at
            for event_id, listed_at in self._remembered.items()
            if now - listed_at < _REMEMBER_EVENT_SECONDS
        }
        return set(self._remembered)

    async def _run_status(self, name: str, event_id: str, **arguments: str | bytes | int) -> Status:
        answer: bytes = await self._run(name, event_id, **arguments)
        return Status(answer.decode())


_WANTED = {"reason": "cancel", "payment_reference": "pay"}


def _our_error(error: ResponseError, arguments: Mapping[str, Any]) -> Exception:
    """The error that a script meant by name; the error itself when it is a defect."""
    words = str(error).removeprefix("ERR ").split()
    name = words[0] if words else ""
    item_id = str(arguments.get("item_id", ""))
    errors: dict[str, BookingWorkerError] = {
        "FENCED": Fenced(item_id, arguments.get("token", 0)),
        "NOT_FOUND": ItemNotFound(item_id),
        "NOT_YOURS": NotYourItem(item_id),
        "USER_HAS_PLACE": UserHasPlace(item_id),
    }
    if name == "WRONG_STATUS":
        wanted = next((_WANTED[key] for key in arguments if key in _WANTED), "do this")
        return WrongStatus(item_id, words[1], wanted)
    return errors.get(name, error)
