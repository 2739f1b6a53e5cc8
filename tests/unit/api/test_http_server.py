from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from booking_worker.api.health import Finding, Grade, Health
from booking_worker.api.http_server import HttpServer
from booking_worker.api.listening import reserve
from booking_worker.domain.errors import InvalidSettings


class Service:
    """A server, and a client of it; the engine is as the test sets it."""

    def __init__(self) -> None:
        self.engine = Finding(Grade.HEALTHY, "")
        self.now = 0.0
        self.health = Health({"engine": self.check}, lambda: self.now)
        self.server = HttpServer(self.health, 0, "127.0.0.1")

    async def check(self) -> Finding:
        return self.engine

    async def get(self, path: str) -> tuple[int, dict[str, object]]:
        self.now += 2
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.server.port}{path}") as response,
        ):
            assert response.content_type == "application/json"
            return response.status, await response.json()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    await service.server.start()
    yield service
    await service.server.stop()


async def test_it_lives_as_long_as_it_answers(service: Service):
    service.engine = Finding(Grade.UNHEALTHY, "gone")
    assert await service.get("/livez") == (200, {"status": "alive"})


async def test_it_is_ready_once_it_serves_and_while_it_is_not_unhealthy(service: Service):
    assert await service.get("/readyz") == (503, {"status": "not ready", "message": "starting"})
    service.health.serve()
    assert await service.get("/readyz") == (200, {"status": "ready"})
    service.engine = Finding(Grade.DEGRADED, "slow")
    assert await service.get("/readyz") == (200, {"status": "ready"})
    service.engine = Finding(Grade.UNHEALTHY, "gone")
    assert await service.get("/readyz") == (
        503,
        {"status": "not ready", "message": "engine is unhealthy: gone"},
    )
    service.health.shut_down()
    assert (await service.get("/readyz"))[1]["message"] == "shutting down"


@pytest.mark.parametrize(
    "grade, code", [(Grade.HEALTHY, 200), (Grade.DEGRADED, 200), (Grade.UNHEALTHY, 503)]
)
async def test_health_has_all_findings(service: Service, grade, code):
    service.engine = Finding(grade, "so")
    status, body = await service.get("/healthz")
    assert (status, body["status"]) == (code, grade)
    assert body["details"] == {"engine": f"{grade}: so"}
    assert body["message"]


async def test_a_port_that_is_taken_is_said_by_the_name_of_its_setting(service: Service):
    second = HttpServer(service.health, service.server.port, "127.0.0.1")
    with pytest.raises(InvalidSettings, match=rf"HTTP_PORT: got {service.server.port}, which"):
        await second.start()
    await second.stop()


async def test_a_reserved_port_is_shared():
    with reserve("HTTP_PORT", 0) as reserved:
        port = reserved.getsockname()[1]
        servers = [HttpServer(Health({}), port, shared=True) for _ in range(2)]
        for server in servers:
            await server.start()
        assert [server.port for server in servers] == [port, port]
        with pytest.raises(InvalidSettings):
            await HttpServer(Health({}), port).start()
        for server in servers:
            await server.stop()


async def test_every_interface_is_listened_on_and_stopping_twice_is_stopping():
    server = HttpServer(Health({}), 0)
    await server.stop()
    await server.start()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}/livez") as response,
    ):
        assert response.status == 200
    await server.stop()
    await server.stop()
