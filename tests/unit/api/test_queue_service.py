"""What the calls answer is in tests/service, over real sockets."""

from __future__ import annotations

from redis.asyncio import Redis

from booking_worker.api.health import Health
from booking_worker.api.operations import Operations
from booking_worker.api.queue_service import QueueService, _key_within
from booking_worker.intake.direct import DirectIntake
from booking_worker.proto import booking_worker_pb2
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.telemetry.metrics import Metrics
from tests.support.api import LIMITS, on_one_engine


@on_one_engine
async def test_every_method_of_the_contract_has_a_handler(redis_client: Redis):
    queue = BookingQueue(redis_client, LIMITS)
    operations = Operations(
        queue,
        DirectIntake(queue, Metrics()),
        Metrics(),
        max_seats=1,
        live_slots=lambda: 0,
        record=print,
    )
    service = QueueService(operations, Health({}), Metrics()).service()
    descriptor = booking_worker_pb2.DESCRIPTOR.services_by_name["BookingWorkerService"]
    assert service.descriptor is descriptor
    assert set(service.handlers) == set(descriptor.methods_by_name)
    streams = [name for name, handler in service.handlers.items() if handler.response_streaming]
    assert streams == ["WatchQueueItem"]


def test_the_requests_of_a_call_with_a_key_have_keys_of_their_own_the_same_every_time():
    keys = [_key_within(key, at) for key in ("a", "b", "1/a") for at in range(100)]
    assert len(set(keys)) == 300
    assert keys[0] == _key_within("a", 0)
    assert all(len(key) == 32 for key in keys)
