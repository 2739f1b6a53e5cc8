"""What the calls answer is in tests/service/test_admin.py, over real sockets."""

from __future__ import annotations

from redis.asyncio import Redis

from booking_worker.api.admin_service import AdminService
from booking_worker.api.administration import Administration
from booking_worker.proto import admin_pb2
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.metrics import Metrics
from tests.support.api import LIMITS, on_one_engine


@on_one_engine
async def test_every_method_of_the_contract_has_a_handler(redis_client: Redis):
    administration = Administration(BookingQueue(redis_client, LIMITS), [].append)
    service = AdminService(administration, Metrics()).service()
    descriptor = admin_pb2.DESCRIPTOR.services_by_name["BookingWorkerAdmin"]
    assert service.descriptor is descriptor
    assert set(service.handlers) == set(descriptor.methods_by_name)
    assert not any(handler.response_streaming for handler in service.handlers.values())
