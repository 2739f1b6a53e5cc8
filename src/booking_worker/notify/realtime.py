"""Telling the Realtime Service what happened, without ever holding up a booking."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, NamedTuple

from booking_worker.domain.backoff import full_jitter
from booking_worker.domain.errors import PeerBreakerOpen, PeerRefused, PeerUnavailable
from booking_worker.domain.model import Change
from booking_worker.notify.messages import Message, Result, ToEveryone, message_of, still_true
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


class _Waiting(NamedTuple):
    """A message that waits to be sent."""

    number: int
    """Grows from message to message."""
    since: float
    message: Message


class _Sender:
    """What one sender has to send, in order."""

    __slots__ = ("something", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.something = asyncio.Event()


class RealtimeNotifier:
    """Sends the messages of changes to the Realtime Service, in the background.

    A message is tried three times. While the service is away the latest 50,000 wait for it, and
    older ones are given up and counted: clients also ask by themselves, so a message saves
    time, and none is worth a booking. For the same reason a stop waits ``grace_seconds`` for the
    service and no longer, however slow it is and however many messages wait.

    One user's messages are sent one after the other, in the order in which it all happened. What
    waits says the time that remains when it is sent, and is given up when none does.
    """

    def __init__(
        self,
        client: RealtimeClient,
        count_lost: Callable[[int], None],
        grace_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._count_lost = count_lost
        self._grace_seconds = grace_seconds
        self._ends_at: float | None = None
        self._clock = clock
        self._numbers = count()
        self._senders = [_Sender() for _ in range(_SENDERS)]
        self._sending: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to send."""
        if not self._sending:
            self._stopping.clear()
            self._ends_at = None
            self._sending = [
                asyncio.create_task(self._send_for_ever(sender)) for sender in self._senders
            ]

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
        for sender in self._senders:
            sender.something.set()
        sending, self._sending = self._sending, []
        if not sending:
            return
        done, late = await asyncio.wait(sending, timeout=max(left, _LEAST_SECONDS))
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if unsent := self._number_waiting:
            log.warning("messages were given up at the stop", messages=unsent)
            self._count_lost(unsent)
            for sender in self._senders:
                sender.waiting.clear()
        await asyncio.gather(*done)

    def tell(self, changes: Sequence[Change]) -> None:
        """Have people told of these changes; returns at once."""
        now = self._clock()
        for change in changes:
            message = message_of(change)
            if message is not None:
                sender = self._senders[_sender_of(message)]
                sender.waiting.append(_Waiting(next(self._numbers), now, message))
                sender.something.set()
        too_many = self._number_waiting - _MOST_WAITING
        if too_many > 0:
            for _ in range(too_many):
                busy = (sender.waiting for sender in self._senders if sender.waiting)
                min(busy, key=lambda waiting: waiting[0].number).popleft()
            self._count_lost(too_many)

    @property
    def _number_waiting(self) -> int:
        return sum(len(sender.waiting) for sender in self._senders)

    async def _send_for_ever(self, sender: _Sender) -> None:
        while True:
            while sender.waiting:
                first = sender.waiting.popleft()
                try:
                    await self._deliver(first)
                except asyncio.CancelledError:
                    # Whether it arrived is unknown: it counts with those that were not sent.
                    sender.waiting.appendleft(first)
                    raise
                except Exception:
                    # One that nobody thought of: what waits behind it is sent all the same.
                    log.exception("a message could not be sent")
                    self._count_lost(1)
            if self._stopping.is_set():
                return
            sender.something.clear()
            await sender.something.wait()

    async def _deliver(self, waiting: _Waiting) -> None:
        tried = 0
        while True:
            waited_ms = int((self._clock() - waiting.since) * 1000)
            message = still_true(waiting.message, waited_ms)
            if message is None:
                log.debug("a message came too late")
                self._count_lost(1)
                return
            try:
                await self._send(message)
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


def _sender_of(message: Message) -> int:
    """Which sender's it is: the same one for all messages of a user, or they would overtake."""
    whose = message.event_id if isinstance(message, ToEveryone) else message.user_id
    return hash(whose) % _SENDERS
