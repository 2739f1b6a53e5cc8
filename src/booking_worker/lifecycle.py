"""The life that everything that runs has: run, ready, stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol

from booking_worker.telemetry.logs import get_logger

log = get_logger(__name__)


class Part(Protocol):
    """Something that app.py starts, waits for, and stops in the opposite order.

    ``start`` returns once the part is ready for use, or raises why it can't be. ``stop`` ends
    it and returns once nothing of it is left running; stopping twice, or before start, is
    stopping.
    """

    async def start(self) -> None:
        """Begin; return when ready."""

    async def stop(self) -> None:
        """End; return when nothing is left running. May be called again."""


async def run_until_told(
    whole: Part, *, on_ready: Callable[[], None], at_once: Callable[[int], None]
) -> None:
    """Start it, call ``on_ready``, and stop it at SIGTERM or SIGINT.

    A signal during the start ends that, and there is no ``on_ready``. ``at_once`` gets the number
    of each signal after the first. What the start or ``on_ready`` raises is raised once nothing
    runs any more.
    """
    asked_to_stop = asyncio.Event()
    starting = asyncio.create_task(whole.start())

    def on_signal(number: int) -> None:
        if asked_to_stop.is_set():
            at_once(number)
            return
        log.info("stopping", signal=signal.Signals(number).name)
        asked_to_stop.set()
        # An engine may load its data for minutes. Once the start has ended this does nothing.
        starting.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        await asyncio.wait({starting})
        if not starting.cancelled():
            starting.result()
        if not asked_to_stop.is_set():
            on_ready()
        await asked_to_stop.wait()
    finally:
        await whole.stop()
    log.info("stopped")
