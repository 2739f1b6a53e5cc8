from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from booking_worker.cli.client import as_dict
from booking_worker.proto import admin_pb2
from tests.support.api import on_one_engine
from tests.support.server import free_port
from tests.support.wait import wait_until
from tests.unit.cli.conftest import Command, Served


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which something listens and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_where_nobody_answers_it_says_which_setting_to_change(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    port = free_port()
    monkeypatch.setenv("GRPC_PORT", str(port))
    ran = command("queue", "status")
    assert ran.code == 1
    assert ran.err.startswith(f"Error: no booking worker answers at localhost:{port}\n")
    assert "GRPC_PORT" in ran.err
    assert "--address" in ran.err


def test_where_nothing_is_said_it_does_not_wait_for_ever(command: Command, silent_port: int):
    ran = command("queue", "status", "--address", f"127.0.0.1:{silent_port}")
    assert ran.code == 1
    assert "no booking worker answers" in ran.err


def test_any_free_port_cannot_be_found(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRPC_PORT", "0")
    ran = command("queue", "status")
    assert ran.code == 1
    assert "--address" in ran.err


def test_something_else_that_answers_is_told_as_such(command: Command):
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        ran = command("queue", "status", "--address", f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()
    assert ran.code == 1
    assert "UNIMPLEMENTED" in ran.err
    assert "Something else, or an older version, answers there" in ran.err


def test_a_certificate_that_is_not_there_is_named(command: Command, tmp_path: Path):
    ran = command("queue", "status", "--tls-ca", str(tmp_path / "ca.pem"))
    assert ran.code == 1
    assert f"{tmp_path / 'ca.pem'} cannot be read" in ran.err
    assert "GRPC_TLS_CERT" in ran.err


async def answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except RedisError:
        return False


@on_one_engine
async def test_an_engine_that_is_away_is_told_by_the_service(served: Served, redis_client: Redis):
    await served.api.join("ann")
    await redis_client.execute_command("CLIENT", "PAUSE", "2500", "ALL")
    ran = await served("queue", "status")
    await wait_until(lambda: answers(redis_client))
    assert ran.code == 1
    assert "UNAVAILABLE" in ran.err
    assert "booking-worker check" in ran.err
    assert "Traceback" not in ran.err


def test_a_message_is_told_as_plain_values():
    item = admin_pb2.Item(
        item_id="a",
        seq=2**40,
        request=admin_pb2.Request(seat_numbers=["A1"], metadata={"via": "app"}),
    )
    told = as_dict(item)
    assert told["seq"] == 2**40
    assert told["request"]["seat_numbers"] == ["A1"]
    assert told["request"]["metadata"] == {"via": "app"}
    assert as_dict(admin_pb2.Item())["request"] is None
    assert as_dict(admin_pb2.EventStatus())["capacity"] is None
    assert as_dict(admin_pb2.EventStatus(capacity=0))["capacity"] == 0
    assert as_dict(admin_pb2.ListItemsResponse(items=[item]))["items"] == [told]
