"""The queue, under the limits that the settings name."""

from __future__ import annotations

from booking_worker.config.engines import needs_of
from booking_worker.config.settings import Settings
from booking_worker.engine.engine import EngineClient
from booking_worker.queue.acknowledge import Acknowledge
from booking_worker.queue.booking_queue import BookingQueue, QueueLimits


def queue_of(settings: Settings, client: EngineClient) -> BookingQueue:
    """The queue in the engine that the client speaks to."""
    needs = needs_of(settings)
    return BookingQueue(
        client, limits_of(settings), acknowledge=Acknowledge(needs.replicas, needs.aof)
    )


def limits_of(settings: Settings) -> QueueLimits:
    """The limits and time spans of the queue."""
    return QueueLimits(
        max_size=settings.queue_max_size,
        places_per_user=settings.queue_places_per_user,
        queue_timeout_ms=_ms(settings.queue_timeout_seconds),
        payment_timeout_ms=_ms(settings.payment_timeout_seconds),
        payment_grace_ms=_ms(settings.payment_grace_seconds),
        result_ttl_ms=max(1, _ms(settings.result_ttl_seconds)),
        lease_ms=_ms(settings.worker_lease_seconds),
        max_retries=settings.worker_max_retries,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
