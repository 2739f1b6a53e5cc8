"""Telling the Realtime Service what happened, without ever holding up a booking."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from booking_worker.domain.backoff import full_jitter
from booking_worker.domain.errors import PeerBreakerOpen, PeerRefused, PeerUnavailable
from booking_worker.domain.model import Change
from booking_worker.notify.messages import Message, Result, ToEveryone, message_of
from booking_worker.peers.realtime import RealtimeClient
from booking_worker.telemetry.logs import get_logger

_SENDERS: Final = 32
_MOST_WAITING: Final = 50_000
_TRIES: Final = 3
_BACKOFF_SECONDS: Final = 0.2
_LONGEST_BACKOFF_SECONDS: Final = 2.0
_LEAST_SECONDS: Final = 1.0
"""What a stop may always take: what ended as the grace time did is told after it."""

log = get_logger(__name__)


class RealtimeNotifier:
    """Sends the messages of changes to the Realtime Service, in the background.

    A message is tried three times. While the service is away the latest 50,000 wait for it, and
    older ones are given up and counted: clients also ask by themselves, so a message saves
    time, and none is worth a booking. For the same reason a stop waits ``grace_seconds`` for the
    service and no longer, however slow it is and however many messages wait.
    """

    def __init__(
        self, client: RealtimeClient, count_lost: Callable[[int], None], grace_seconds: float
    ) -> None:
        self._client = client
        self._count_lost = count_lost
        self._grace_seconds = grace_seconds
        self._ends_at: float | None = None
        self._waiting: deque[Message] = deque()
        self._something = asyncio.Event()
        self._senders: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to send."""
        if not self._senders:
            self._stopping.clear()
            self._ends_at = None
            self._senders = [asyncio.create_task(self._send_for_ever()) for _ in range(_SENDERS)]

    def expect_stop(self) -> float:
        """Have the grace time begin now, where it has not yet; the event loop's time it ends at.

        The other parts of a service that stops use it up as well: it is one for all of them.
        """
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time() + self._grace_seconds
        return self._ends_at

    async def stop(self) -> None:
        """Send what waits, each message tried once more, and end.

        What is left when the grace time is over is given up and counted; it may take a second
        in any case.
        """
        left = self.expect_stop() - asyncio.get_running_loop().time()
        self._stopping.set()
        self._something.set()
        senders, self._senders = self._senders, []
        if not senders:
            return
        done, late = await asyncio.wait(senders, timeout=max(left, _LEAST_SECONDS))
        for sender in late:
            sender.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self._waiting:
            log.warning("messages were given up at the stop", messages=len(self._waiting))
            self._count_lost(len(self._waiting))
            self._waiting.clear()
        await asyncio.gather(*done)

    def tell(self, changes: Sequence[Change]) -> None:
        """Have people told of these changes; returns at once."""
        for change in changes:
            message = message_of(change)
            if message is not None:
                self._waiting.append(message)
        too_many = len(self._waiting) - _MOST_WAITING
        if too_many > 0:
            for _ in range(too_many):
                self._waiting.popleft()
            self._count_lost(too_many)
        if self._waiting:
            self._something.set()

    async def _send_for_ever(self) -> None:
        while True:
            while self._waiting:
                await self._deliver(self._waiting.popleft())
            if self._stopping.is_set():
                return
            self._something.clear()
            await self._something.wait()

    async def _deliver(self, message: Message) -> None:
        tried = 0
        while True:
            try:
                await self._send(message)
            except asyncio.CancelledError:
                # Whether it arrived is unknown: it counts with those that were not sent.
                self._waiting.appendleft(message)
                raise
            except PeerRefused as error:
                log.debug("a message was refused", error=str(error))
                self._count_lost(1)
                return
            except (PeerUnavailable, PeerBreakerOpen) as error:
                tried += isinstance(error, PeerUnavailable)
                if tried >= _TRIES or self._stopping.is_set():
                    log.debug("a message was given up", error=str(error))
                    self._count_lost(1)
                    return
                # While the breaker is open nothing was tried, and the message may wait long.
                pause = full_jitter(tried + 1, _BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS)
                await self._wait(pause + self._client.breaker.seconds_until_trial)
            else:
                return

    async def _wait(self, seconds: float) -> None:
        """Wait so long, or until the notifier stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _send(self, message: Message) -> None:
        if isinstance(message, Result):
            await self._client.notify_booking_result(
                user_id=message.user_id,
                event_id=message.event_id,
                booking_id=message.booking_id,
                success=message.success,
                message=message.message,
                booking_reference=message.booking_reference,
            )
        elif isinstance(message, ToEveryone):
            await self._client.broadcast(message.event_id, message.type, message.payload)
        else:
            await self._client.send_to_user(message.user_id, message.type, message.payload)
