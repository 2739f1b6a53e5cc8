"""Keeps so many processes running, and knows what is wrong with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from signal import SIGTERM, Signals
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)

from booking_worker.supervisor.child import COMMAND, Child
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.merging import MergedMetrics

FIRST_PAUSE_SECONDS: Final = 0.1
MOST_PAUSE_SECONDS: Final = 15.0
STABLE_SECONDS: Final = 30.0
"""Who lived so long did not end soon after its start."""
SILENT_SECONDS: Final = 10.0
HUNG_SECONDS: Final = 30.0
"""Who is silent for so long has its share of the connections and answers none: it is killed.

It speaks every two seconds; what holds up a machine that is merely busy is over much sooner.
"""
_LOOK_SECONDS: Final = 1.0
_OFTEN: Final = 3

_log = get_logger(__name__)


class NotStarted(Exception):
    """A process ended before it was ready for the first time; it has said why."""

    def __init__(self, number: int, code: int) -> None:
        super().__init__(f"process {number} ended with exit code {code} before it was ready")
        self.code = code


def pause_after(failures: int) -> float:
    """Seconds to wait after so many ends in a row that came soon after the start."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 30), MOST_PAUSE_SECONDS)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else Signals(-code).name


class _Seat:
    """One of the numbered processes: who it is at present, and how its predecessors ended."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        self.began = 0.0
        self.ready = False
        self.not_ready = ""
        self.failures = 0
        self.pause = 0.0
        self.how_it_ended = ""
        self.first: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        """None once it is ready for the first time; the exit code when it ended before that."""

    @property
    def serves(self) -> bool:
        """Whether calls that reach it are in good hands."""
        return self.ready and not self.not_ready and not self._silent_for()

    def trouble(self) -> str:
        """What is wrong with it; empty when nothing is."""
        who = f"process {self.number}"
        if self.how_it_ended and (not self.ready or self._fails_often()):
            often = (
                f"ended {self.failures} times in a row, lastly" if self.failures > 1 else "ended"
            )
            now = "runs again" if self.ready else f"starts again after {self.pause:.3g} s"
            return f"{who} {often} with {self.how_it_ended}, and {now}"
        if not self.ready:
            return f"{who} starts"
        if silent := self._silent_for():
            return f"{who} has been silent for {silent:.0f} s"
        return f"{who} is not ready: {self.not_ready}" if self.not_ready else ""

    def _fails_often(self) -> bool:
        return self.failures >= _OFTEN and time.monotonic() - self.began < STABLE_SECONDS

    def _silent_for(self) -> float:
        silent = time.monotonic() - self.child.heard_at if self.child else 0.0
        return silent if self.ready and silent > SILENT_SECONDS else 0.0


class Crew:
    """So many processes, each started again when it ends, and told how the others are.

    The pause before that grows when one ends again soon after its start. One that hangs is ended.
    """

    def __init__(
        self,
        hellos: Sequence[Mapping[str, Any]],
        grace_seconds: float,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """``hellos`` has the first message to each; ``grace_seconds`` is what a stop waits."""
        self._hellos = hellos
        self._grace_seconds = grace_seconds
        self._command = command
        self._seats: list[_Seat] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._told: dict[str, Any] = {}
        disable_created_metrics()
        registry = CollectorRegistry()
        ProcessCollector(namespace="booking_worker", registry=registry)
        self._serving = Gauge(
            "booking_worker_processes", "Processes that are ready for calls.", registry=registry
        )
        self._restarts = Counter(
            "booking_worker_process_restarts_total",
            "Processes that ended and were started again.",
            registry=registry,
        )
        self.metrics = MergedMetrics(registry)
        """Of all processes as one; ``leave`` and ``update`` are this crew's to call."""
        self.clean = True
        """Whether every process that was stopped ended as it should."""

    @property
    def pids(self) -> list[int]:
        """The ids of those that run."""
        return [seat.child.pid for seat in self._seats if seat.child is not None]

    async def start(self) -> None:
        """Start one, and the others when it is ready; return when all are, or when told to stop.

        Raises:
            NotStarted: one of them ended first.
        """
        self._seats = [_Seat(number) for number in range(1, len(self._hellos) + 1)]
        self._looking = asyncio.create_task(self._look_for_ever())
        # What is wrong with the settings is said once, by the first.
        for seats in (self._seats[:1], self._seats[1:]):
            if self._stopping.is_set():
                return
            self._keeping += [asyncio.create_task(self._keep(seat)) for seat in seats]
            await self._ready(seats)

    async def _ready(self, seats: Sequence[_Seat]) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        waiting: set[asyncio.Future[Any]] = {seat.first for seat in seats}
        while waiting and not stopping.done():
            done, waiting = await asyncio.wait(
                {*waiting, stopping}, return_when=asyncio.FIRST_COMPLETED
            )
            waiting.discard(stopping)
            for seat in seats:
                if seat.first in done and (code := seat.first.result()) is not None:
                    stopping.cancel()
                    raise NotStarted(seat.number, code)
        stopping.cancel()

    def ask_to_stop(self) -> None:
        """Ask every process to end, and start none from now on."""
        self._stopping.set()
        for seat in self._seats:
            if seat.child is not None:
                seat.child.terminate()

    def kill(self) -> None:
        """End every process at once."""
        for seat in self._seats:
            if seat.child is not None:
                seat.child.kill()

    async def stop(self) -> None:
        """Ask all to end, and return when they have; who takes too long is killed."""
        self.ask_to_stop()
        if self._keeping:
            _, late = await asyncio.wait(self._keeping, timeout=self._grace_seconds)
            if late:
                self.clean = False
                _log.error("processes did not stop in time, and are killed", pids=self.pids)
                self.kill()
            for keeping in self._keeping:
                await keeping
            self._keeping = []
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None

    async def _keep(self, seat: _Seat) -> None:
        while not self._stopping.is_set():
            seat.began = time.monotonic()
            try:
                code = await self._run(seat)
            except OSError as error:
                seat.how_it_ended = f"{error.strerror} at its start"
                code = 1
            else:
                seat.how_it_ended = _how(code)
            self.metrics.leave(seat.number)
            if self._stopping.is_set():
                if code not in {0, -SIGTERM}:
                    self.clean = False
                    _log.error("a process did not stop cleanly", number=seat.number, code=code)
                return
            if not seat.first.done():
                seat.first.set_result(code)
                return
            await self._pause(seat, code)

    async def _run(self, seat: _Seat) -> int:
        def on_message(message: dict[str, Any]) -> None:
            self._heard(seat, message)

        seat.not_ready = ""
        first = self._hellos[seat.number - 1]
        seat.child = child = await Child.start(first, on_message, self._command)
        if self._stopping.is_set():
            child.terminate()
        try:
            return await child.ended()
        finally:
            seat.child = None
            seat.ready = False

    async def _pause(self, seat: _Seat, code: int) -> None:
        soon = time.monotonic() - seat.began < STABLE_SECONDS
        # One that was told to end by somebody else is not to blame.
        blameless = code == 0
        seat.failures = 0 if blameless else seat.failures + 1 if soon else 1
        seat.pause = 0.0 if blameless else pause_after(seat.failures)
        self._restarts.inc()
        say = _log.info if blameless else _log.error
        say(
            "a process ended, and is started again",
            number=seat.number,
            how=seat.how_it_ended,
            failures=seat.failures,
            pause_seconds=seat.pause,
        )
        self._tell_all()
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({stopping}, timeout=seat.pause)
        stopping.cancel()

    def _heard(self, seat: _Seat, message: dict[str, Any]) -> None:
        if "ready" in message:
            seat.ready = True
            if not seat.first.done():
                seat.first.set_result(None)
            elif seat.child is not None:
                _log.info("a process is back", number=seat.number, pid=seat.child.pid)
            self._told = {}
        if "page" in message:
            self.metrics.update(seat.number, message["page"])
        if "not_ready" in message:
            seat.not_ready = message["not_ready"]
        self._tell_all()

    def _tell_all(self) -> None:
        ready = sum(seat.serves for seat in self._seats)
        self._serving.set(ready)
        news = {
            "ready": ready,
            "of": len(self._seats),
            "troubles": list(filter(None, (seat.trouble() for seat in self._seats))),
        }
        if news != self._told:
            self._told = news
            for seat in self._seats:
                if seat.child is not None:
                    seat.child.tell(news)

    async def _look_for_ever(self) -> None:
        looked_at = awake_since = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            # Who was itself held up, as in a machine that was paused, has not listened until now.
            if now - looked_at > SILENT_SECONDS:
                awake_since = now
            looked_at = now
            self._kill_hung(awake_since)
            self._tell_all()

    def _kill_hung(self, awake_since: float) -> None:
        if self._stopping.is_set():
            return  # a stop has a time limit of its own
        for seat in self._seats:
            child = seat.child
            if child is None or not seat.ready:
                continue
            silent = time.monotonic() - max(child.heard_at, awake_since)
            if silent > HUNG_SECONDS:
                _log.error(
                    "a process hangs, and is killed",
                    number=seat.number,
                    pid=child.pid,
                    silent_seconds=round(silent, 1),
                )
                child.kill()
