from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2 as pb

from booking_worker.api import health_service
from booking_worker.api.health import Health
from booking_worker.api.health_service import HealthService
from booking_worker.telemetry.metrics import Metrics
from tests.support.wait import wait_until

SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING


class Stream:
    def __init__(self) -> None:
        self.told: list[Any] = []

    async def write(self, response: Any) -> None:
        self.told.append(response.status)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(health_service, "_SECONDS_BETWEEN_LOOKS", 0.001)


async def test_who_watches_hears_of_changes_alone():
    health = Health({})
    service = HealthService(health, ["our.Service"], Metrics())
    stream: Any = Stream()
    watching = asyncio.create_task(
        service._watch(pb.HealthCheckRequest(service="our.Service"), stream)
    )
    await wait_until(lambda: stream.told == [NOT_SERVING])
    health.serve()
    await wait_until(lambda: stream.told == [NOT_SERVING, SERVING])
    health.shut_down()
    assert service.shut_down() == 1
    await watching
    assert stream.told == [NOT_SERVING, SERVING, NOT_SERVING]
    assert service.shut_down() == 0


async def test_a_watch_of_an_unknown_service_stays_open_as_the_protocol_asks():
    service = HealthService(Health({}), [], Metrics())
    stream: Any = Stream()
    watching = asyncio.create_task(service._watch(pb.HealthCheckRequest(service="odd"), stream))
    await wait_until(lambda: stream.told == [pb.HealthCheckResponse.SERVICE_UNKNOWN])
    assert not watching.done()
    service.shut_down()
    await watching


async def test_every_method_of_the_protocol_has_a_handler():
    service = HealthService(Health({}), [], Metrics()).service()
    assert set(service.handlers) == {"Check", "List", "Watch"}
