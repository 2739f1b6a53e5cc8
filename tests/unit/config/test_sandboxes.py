from __future__ import annotations

from pathlib import Path

import pytest

from booking_worker.config import load
from booking_worker.config.sandboxes import sandbox_of
from booking_worker.domain.errors import InvalidSettings
from tests.support.server import free_port


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "dns:///localhost"])
async def test_it_stands_where_the_settings_say(host: str, tmp_path: Path):
    ports = [free_port(), free_port()]
    sandbox = sandbox_of(
        load(
            overrides={
                "data_dir": tmp_path,
                "grpc_booking_service_endpoint": f"{host}:{ports[0]}",
                "grpc_ticket_service_endpoint": "",
                "grpc_realtime_service_endpoint": f"{host}:{ports[1]}",
            }
        )
    )
    await sandbox.start()
    assert sandbox.booking_endpoint == f"127.0.0.1:{ports[0]}"
    assert sandbox.realtime_endpoint == f"127.0.0.1:{ports[1]}"
    await sandbox.stop()
    assert (tmp_path / "sandbox.db").exists()


def test_it_does_not_stand_in_for_services_elsewhere():
    with pytest.raises(InvalidSettings) as refused:
        sandbox_of(
            load(
                overrides={
                    "grpc_booking_service_endpoint": "10.255.255.1:15011",
                    "grpc_ticket_service_endpoint": "unix:/run/tickets.sock",
                    "grpc_realtime_service_endpoint": "localhost.example.com:50060",
                }
            )
        )
    assert refused.value.problems == tuple(
        f"GRPC_{service}_SERVICE_ENDPOINT: got {endpoint}, takes localhost:PORT with --sandbox"
        for service, endpoint in (
            ("BOOKING", "10.255.255.1:15011"),
            ("TICKET", "unix:/run/tickets.sock"),
            ("REALTIME", "localhost.example.com:50060"),
        )
    )
