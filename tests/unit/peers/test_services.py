from __future__ import annotations

from booking_worker.peers.services import Services


async def test_a_service_without_an_endpoint_has_no_client():
    services = Services("localhost:1", "", "", 1.0)
    assert services.ticket is None
    assert services.realtime is None
    await services.start()
    await services.stop()
    await services.stop()


async def test_each_client_has_a_breaker_of_its_own():
    services = Services("localhost:1", "localhost:2", "localhost:3", 1.0)
    assert services.ticket
    assert services.realtime
    breakers = [
        services.booking.breaker,
        services.ticket.breaker,
        services.realtime.breaker,
    ]
    assert breakers == list(services.breakers.values())
    assert len({id(breaker) for breaker in breakers}) == 3
    await services.stop()
