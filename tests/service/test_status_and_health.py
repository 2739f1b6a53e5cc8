"""GetQueueStatus, Health, WatchQueueItem and grpc.health.v1."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from booking_worker.domain.model import Status
from booking_worker.proto import booking_worker_pb2 as pb
from tests.support.api import EVENT, Api, failure, field_at_fault, on_one_engine

pytestmark = on_one_engine

SERVICE = "booking_worker.v1.BookingWorkerService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_the_status_of_a_queue_has_its_figures(api: Api):
    for user in ("ann", "bob", "cid"):
        await api.join(user)
    await api.claim()
    status = await api.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id=EVENT))
    assert status.success
    assert (status.queue_length, status.processing, status.awaiting_payment) == (2, 1, 0)
    assert status.active_workers == 7
    assert status.processing_rate > 0
    assert not status.sold_out
    assert not status.paused
    assert status.message == "open"


async def test_an_event_that_nobody_joined_has_an_empty_queue(api: Api):
    status = await api.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id="unheard-of"))
    assert status == pb.GetQueueStatusResponse(
        success=True, active_workers=7, message="nobody has joined"
    )


async def test_a_sold_out_event_says_so(api: Api):
    await api.bring_to(Status.SOLD_OUT)
    status = await api.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id="sold_out-ann"))
    assert status.sold_out
    assert status.message == "sold out"


@pytest.mark.parametrize("event_id", ["", "a b", "{}", "x" * 129, "\n"])
async def test_a_wrong_event_is_named(api: Api, event_id):
    error = await failure(api.stub.GetQueueStatus(pb.GetQueueStatusRequest(event_id=event_id)))
    assert field_at_fault(error) == "event_id"


async def test_watching_comes_with_a_later_version(api: Api):
    call = api.stub.WatchQueueItem(pb.GetQueuePositionRequest(queue_item_id="x", user_id="ann"))
    error = await failure(call.read())
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_has_an_entry_per_dependency(api: Api):
    answer = await api.stub.Health(pb.HealthRequest(service="booking-worker"))
    assert (answer.status, answer.message) == ("healthy", "all is well")
    assert answer.details["engine"].startswith("healthy: answers in ")
    error = await failure(api.stub.Health(pb.HealthRequest(service="x" * 129)))
    assert field_at_fault(error) == "service"


async def test_the_health_protocol_follows_readiness(api: Api):
    health = health_pb2_grpc.HealthStub(api.channel)
    for service in ("", SERVICE, "booking_worker.v1.BookingWorkerAdmin"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == SERVING
    error = await failure(health.Check(health_pb2.HealthCheckRequest(service="another")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    listed = await health.List(health_pb2.HealthListRequest())
    assert {name: entry.status for name, entry in listed.statuses.items()}[SERVICE] == SERVING
    api.health.shut_down()
    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert answer.status == NOT_SERVING


async def test_who_watches_health_hears_of_the_shutdown_and_does_not_hold_it_up(api: Api):
    health = health_pb2_grpc.HealthStub(api.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="another"))
    assert (await watch.read()).status == SERVING
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    await api.server.stop()
    assert (await watch.read()).status == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF
