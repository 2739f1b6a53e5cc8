"""The load measures what it says, and takes no error for a success."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench import load
from bench.echo import ITEM_ID, echo_service
from bench.h2 import Connection, ProtocolError
from booking_worker.api.grpc_server import GrpcServer
from booking_worker.api.health import Health
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.telemetry.metrics import Metrics

SERVICE = "/booking_worker.v1.BookingWorkerService/"


@pytest.fixture(params=["native", "grpcio"])
async def server(request: pytest.FixtureRequest):
    """An echo, whose Health fails every third call and whose CancelQueueItem is silent."""
    metrics = Metrics()
    service = echo_service(metrics)
    calls = 0

    async def fail_each_third(_payload: bytes, context: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"call {calls % 2}")
        return pb.HealthResponse(status="healthy").SerializeToString()

    handlers = dict(service.handlers) | {
        "Health": grpc.unary_unary_rpc_method_handler(fail_each_third)
    }
    server = GrpcServer(
        [dataclasses.replace(service, handlers=handlers)],
        Health({}),
        metrics,
        0,
        host="127.0.0.1",
        transport=request.param,
    )
    await server.start()
    yield server
    await server.stop()


async def make_calls(
    server: GrpcServer, directory: Path, method: str, messages: list[bytes], *options: str
) -> dict[str, Any]:
    load.write_messages(directory / "messages", messages)
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "bench.load",
            "--port",
            str(server.port),
            "--path",
            SERVICE + method,
        ),
        *("--messages", str(directory / "messages"), "--connections", "3", "--streams", "4"),
        *options,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(load.__file__).parents[1],
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(out)
    return result


def joins(number: int) -> list[bytes]:
    return [
        pb.EnqueueBookingRequest(user_id=f"user-{at}", event_id="e").SerializeToString()
        for at in range(number)
    ]


async def test_every_call_is_made_once_and_timed(server: GrpcServer, tmp_path: Path) -> None:
    kept = tmp_path / "answers"
    result = await make_calls(
        server, tmp_path, "EnqueueBooking", joins(500), "--answers", str(kept)
    )
    assert result["calls"] == result["ok"] == 500
    assert result["errors"] == {}
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
    assert result["per_second"] == pytest.approx(500 / result["seconds"], rel=0.01)
    answers = [pb.EnqueueBookingResponse.FromString(answer) for answer in load.read_messages(kept)]
    assert [answer.queue_item_id for answer in answers] == [ITEM_ID] * 500


async def test_fewer_calls_than_connections(server: GrpcServer, tmp_path: Path) -> None:
    for number in (1, 2):
        assert (await make_calls(server, tmp_path, "EnqueueBooking", joins(number)))["ok"] == number


async def test_an_error_is_no_success_however_it_is_written(
    server: GrpcServer, tmp_path: Path
) -> None:
    result = await make_calls(server, tmp_path, "Health", [b""] * 300)
    assert result["ok"] == 200
    assert all(status.startswith("14 call") for status in result["errors"])
    assert sorted(result["errors"].values()) == [50, 50]


async def test_an_unknown_method_is_an_error(server: GrpcServer, tmp_path: Path) -> None:
    result = await make_calls(server, tmp_path, "NoSuchMethod", [b""] * 20)
    assert result["ok"] == 0
    [(status, count)] = result["errors"].items()
    assert status.startswith("12")
    assert count == 20


async def test_messages_beyond_one_frame_and_windows_that_fill_up(
    server: GrpcServer, tmp_path: Path
) -> None:
    batch = pb.EnqueueBookingsRequest(
        requests=[
            pb.EnqueueBookingRequest(user_id=f"user-{at}", event_id="e" * 100, seat_count=2)
            for at in range(400)
        ]
    ).SerializeToString()
    assert len(batch) > 40_000
    kept = tmp_path / "answers"
    result = await make_calls(
        server, tmp_path, "EnqueueBookings", [batch] * 60, "--answers", str(kept)
    )
    assert result["ok"] == 60
    for answer in load.read_messages(kept):
        assert len(pb.EnqueueBookingsResponse.FromString(answer).responses) == 400


async def test_a_connection_that_ends_is_an_error_and_not_a_result() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with pytest.raises(ProtocolError, match="closed"):
        await asyncio.to_thread(Connection, address, "/s/m", [b""], 1, {})
    server.close()
    await server.wait_closed()


def test_messages_come_back_from_their_file(tmp_path: Path) -> None:
    messages = [b"", b"one", b"\0" * 1000]
    load.write_messages(tmp_path / "file", messages)
    assert load.read_messages(tmp_path / "file") == messages


def test_percentiles() -> None:
    ordered = [float(at) for at in range(1, 101)]
    assert load.percentile(ordered, 0.5) == 51
    assert load.percentile(ordered, 0.99) == 100
    assert load.percentile([7.0], 0.99) == 7
