"""How the service is: one finding per dependency, and whether calls should be sent here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from booking_worker.api.progress import LineWatch
from booking_worker.domain.errors import BookingWorkerError, PeerError
from booking_worker.telemetry.logs import get_logger

_log = get_logger(__name__)

_FRESH_SECONDS = 1.0
_CHECK_SECONDS = 2.0
_PEER_FRESH_SECONDS = 5.0
_PEER_CHECK_SECONDS = 1.0
_MOST_NAMED = 5


class Grade(StrEnum):
    """How a dependency is, or the whole service: the worst of its dependencies."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


_WORSE = {Grade.HEALTHY: 0, Grade.DEGRADED: 1, Grade.UNHEALTHY: 2}


class Finding(NamedTuple):
    """What a check found: degraded is worked around, unhealthy is not."""

    grade: Grade
    message: str


Check: TypeAlias = Callable[[], Awaitable[Finding]]


class Report(NamedTuple):
    """The findings of all checks at one moment."""

    status: Grade
    message: str
    details: dict[str, str]
    """The grade of each dependency, with a colon and more words where there is more to say."""
    unhealthy: str
    """Those that are unhealthy, and why; empty when none is."""


class Health:
    """Asks every check at most once a second, however many ask how the service is."""

    def __init__(
        self, checks: Mapping[str, Check], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._checks = dict(checks)
        self._clock = clock
        self._asking: asyncio.Task[Report] | None = None
        self._asked_at = float("-inf")
        self._not_serving = "starting"

    def serve(self) -> None:
        """From now on the service is ready whenever it is not unhealthy."""
        self._not_serving = ""

    def shut_down(self) -> None:
        """From now on the service is not ready, whatever its health."""
        self._not_serving = "shutting down"

    async def report(self) -> Report:
        """How everything is, as of at most a second ago."""
        asking = self._asking
        if asking is None or (asking.done() and self._clock() - self._asked_at > _FRESH_SECONDS):
            asking = self._asking = asyncio.create_task(self._ask())
            self._asked_at = self._clock()
        # Who asks and goes away takes nothing from the others.
        return await asyncio.shield(asking)

    async def why_not_ready(self) -> str:
        """Why no calls should be sent here; empty when they should."""
        if self._not_serving:
            return self._not_serving
        report = await self.report()
        return report.unhealthy

    async def _ask(self) -> Report:
        names = list(self._checks)
        findings = await asyncio.gather(*(self._finding(name) for name in names))
        grades = [finding.grade for finding in findings]
        status = max(grades, key=_WORSE.__getitem__, default=Grade.HEALTHY)
        troubles = {
            f"{name} is {grade}: {message}": grade
            for name, (grade, message) in zip(names, findings, strict=True)
            if grade is not Grade.HEALTHY
        }
        return Report(
            status,
            "; ".join(troubles) or "all is well",
            {
                name: f"{grade}: {message}" if message else str(grade)
                for name, (grade, message) in zip(names, findings, strict=True)
            },
            "; ".join(said for said, grade in troubles.items() if grade is Grade.UNHEALTHY),
        )

    async def _finding(self, name: str) -> Finding:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await self._checks[name]()
        except TimeoutError:
            return Finding(Grade.UNHEALTHY, f"no answer within {_CHECK_SECONDS:g} s")
        except BookingWorkerError as error:
            return Finding(Grade.UNHEALTHY, str(error))
        except Exception as error:  # noqa: BLE001 - said in the finding, and logged
            _log.exception("a health check failed", check=name)
            return Finding(Grade.UNHEALTHY, f"{type(error).__name__}: {error}")


def engine_check(
    ask: Callable[[], Awaitable[object]], writes_refused: Callable[[], str] = lambda: ""
) -> Check:
    """Healthy while the engine answers this question and takes what is written.

    ``writes_refused`` says why it did not take the last write, or nothing. Reads alone say too
    little: an engine that lacks replicas, memory or disk answers them, and refuses every join.
    """

    async def check() -> Finding:
        start = time.perf_counter()
        await ask()
        if why := writes_refused():
            return Finding(Grade.UNHEALTHY, f"takes no writes: {why}")
        return Finding(Grade.HEALTHY, f"answers in {(time.perf_counter() - start) * 1000:.1f} ms")

    return check


def peer_check(
    ask: Callable[[], Awaitable[str]] | None,
    breaker_state: Callable[[], str] = lambda: "closed",
    clock: Callable[[], float] = time.monotonic,
) -> Check:
    """How a service that we call is, asked every few seconds at most; None: not configured.

    Never unhealthy: without it the line waits or goes on, and nobody loses a place.
    """
    if ask is None:
        return _not_configured
    asked_at = float("-inf")
    last = Finding(Grade.HEALTHY, "")

    async def check() -> Finding:
        nonlocal asked_at, last
        state = breaker_state()
        if state != "closed":
            return Finding(Grade.DEGRADED, f"failed too often lately; its breaker is {state}")
        if clock() - asked_at > _PEER_FRESH_SECONDS:
            asked_at = clock()
            last = await _ask_peer(ask)
        return last

    return check


async def _not_configured() -> Finding:
    return Finding(Grade.HEALTHY, "not configured")


async def _ask_peer(ask: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(_PEER_CHECK_SECONDS):
            status = await ask()
    except TimeoutError:
        return Finding(Grade.DEGRADED, f"no answer within {_PEER_CHECK_SECONDS:g} s")
    except PeerError as error:
        return Finding(Grade.DEGRADED, error.message)
    if status and status != Grade.HEALTHY:
        return Finding(Grade.DEGRADED, f"says that it is {status}")
    return Finding(Grade.HEALTHY, "")


def admission_check(
    paused: Callable[[], str], paused_events: Callable[[], Mapping[str, str]]
) -> Check:
    """Degraded while people wait for an operator to resume admission; joins go on.

    ``paused`` says why nobody is admitted to any event (empty when they are), ``paused_events``
    of which events that is so.
    """

    async def check() -> Finding:
        why, events = paused(), paused_events()
        if not why and events:
            names = ", ".join(sorted(events)[:_MOST_NAMED])
            more = f" and {len(events) - _MOST_NAMED} more" if len(events) > _MOST_NAMED else ""
            why = f"paused for {names}{more}: {events[min(events)]}"
        if why:
            return Finding(Grade.DEGRADED, f"nobody is admitted; {why}")
        return Finding(Grade.HEALTHY, "")

    return check


def capacity_check(trouble: Callable[[], str]) -> Check:
    """Degraded while it can't be found out what is left; ``trouble`` says of what, or nothing."""

    async def check() -> Finding:
        why = trouble()
        return Finding(Grade.DEGRADED if why else Grade.HEALTHY, why)

    return check


def feed_check(trouble: Callable[[], str]) -> Check:
    """Degraded while people are not told of changes from here; ``trouble`` says why, or nothing."""

    async def check() -> Finding:
        if why := trouble():
            return Finding(
                Grade.DEGRADED, f"changes wait to be told (audit log, Realtime Service): {why}"
            )
        return Finding(Grade.HEALTHY, "")

    return check


def lock_check(silent: Callable[[], Awaitable[Sequence[int]]], nodes: Sequence[str]) -> Check:
    """Degraded while lock nodes do not answer; ``silent`` says which of ``nodes`` do not."""

    async def check() -> Finding:
        gone = await silent()
        if not gone:
            return Finding(Grade.HEALTHY, "")
        says = f"no answer from {', '.join(nodes[at] for at in gone)} of REDIS_LOCK_NODES"
        if len(nodes) - len(gone) <= len(nodes) // 2:
            says += "; until a majority answers nobody is told of changes, while sales go on"
        return Finding(Grade.DEGRADED, says)

    return check


def worker_check(
    lines: LineWatch,
    seconds_since_claim: Callable[[], float | None],
    patience_seconds: float,
    waits_for: Callable[[], str] = lambda: "",
) -> Check:
    """Whether the work goes on, by the progress seen.

    ``seconds_since_claim`` is when the engine last answered a claim of this replica (with work
    or without), None for never; ``waits_for`` names the peer whose open breaker keeps the
    workers from claiming, which is patience and no fault of theirs.
    """
    started = time.monotonic()

    async def check() -> Finding:
        ago = seconds_since_claim()
        if ago is None:
            ago = time.monotonic() - started
        still = lines.standing_still()
        peer = waits_for()
        if peer:
            return Finding(Grade.DEGRADED, f"waits for the {peer}")
        if ago > patience_seconds:
            return Finding(Grade.UNHEALTHY, f"no claim has succeeded for {ago:.0f} s")
        if still:
            event_id, seconds = max(still.items(), key=lambda entry: entry[1])
            more = f" (and {len(still) - 1} more)" if len(still) > 1 else ""
            return Finding(
                Grade.UNHEALTHY, f"the line of {event_id}{more} stands still for {seconds:.0f} s"
            )
        return Finding(Grade.HEALTHY, f"claimed {ago:.1f} s ago")

    return check
