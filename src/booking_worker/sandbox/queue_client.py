"""How buyers speak to the queue: over a few shared connections, and again when unsure."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from booking_worker.domain.backoff import full_jitter
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.proto import booking_worker_pb2_grpc

Answer = TypeVar("Answer")

_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    # Or all channels to one endpoint would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # An endpoint may name several replicas (ipv4:HOST:PORT,HOST:PORT): calls go to those that live.
    ("grpc.lb_policy_name", "round_robin"),
    # Else the whole list would be the name of the host, which no server takes.
    ("grpc.default_authority", "localhost"),
)
_MAY_PASS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
    }
)
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 2.0


class Refused(Exception):
    """The queue said no; ``str()`` is the status code and its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class QueueClient:
    """The calls of BookingWorkerService that a buyer needs.

    A call that gets no answer, or one that may pass, is repeated unchanged, with full jitter,
    for as long as it takes: the service may be killed and started again meanwhile. Every call
    raises Refused when the queue says no.
    """

    def __init__(
        self, endpoint: str, rng: random.Random, connections: int = 4, timeout_seconds: float = 10.0
    ) -> None:
        self._channels = [
            grpc.aio.insecure_channel(endpoint, options=_OPTIONS) for _ in range(connections)
        ]
        self._stubs = [
            booking_worker_pb2_grpc.BookingWorkerServiceStub(channel) for channel in self._channels
        ]
        self._rng = rng
        self._timeout_seconds = timeout_seconds
        self.calls = 0
        """How many calls were made."""
        self.failures: Counter[str] = Counter()
        """How many of them ended with each code that may pass."""

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def join(
        self, request: pb.EnqueueBookingRequest, connection: int, key: str = ""
    ) -> pb.EnqueueBookingResponse:
        """Take a place in line, under an idempotency key if one is given."""
        metadata = (("idempotency-key", key),) if key else None
        return await self._ask(self._stub(connection).EnqueueBooking, request, metadata)

    async def position(
        self, request: pb.GetQueuePositionRequest, connection: int, pause_seconds: float = 0.0
    ) -> pb.GetQueuePositionResponse:
        """Ask where an item stands, and not again within ``pause_seconds``."""
        method = self._stub(connection).GetQueuePosition
        return await self._ask(method, request, pause_seconds=pause_seconds)

    async def cancel(self, item_id: str, user_id: str, connection: int) -> None:
        """Give up a place."""
        request = pb.CancelQueueItemRequest(
            queue_item_id=item_id, user_id=user_id, reason="changed my mind"
        )
        await self._ask(self._stub(connection).CancelQueueItem, request)

    async def pay(
        self, item_id: str, user_id: str, payment_reference: str, connection: int
    ) -> pb.ConfirmPaymentResponse:
        """Say that it has been paid."""
        request = pb.ConfirmPaymentRequest(
            queue_item_id=item_id, user_id=user_id, payment_reference=payment_reference
        )
        return await self._ask(self._stub(connection).ConfirmPayment, request)

    def _stub(self, connection: int) -> booking_worker_pb2_grpc.BookingWorkerServiceAsyncStub:
        return self._stubs[connection % len(self._stubs)]

    async def _ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Any, Answer],
        request: Any,
        metadata: Sequence[tuple[str, str]] | None = None,
        pause_seconds: float = 0.0,
    ) -> Answer:
        failed = 0
        while True:
            self.calls += 1
            try:
                return await method(request, timeout=self._timeout_seconds, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                code = error.code()
                if code not in _MAY_PASS:
                    raise Refused(code.name, error.details() or "") from None
            self.failures[code.name] += 1
            failed += 1
            jitter = full_jitter(
                failed, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, self._rng.random
            )
            await asyncio.sleep(max(jitter, pause_seconds))
