"""A real gRPC server whose answers a test writes down beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from booking_worker.proto import booking_pb2_grpc, realtime_pb2_grpc, ticket_pb2_grpc


@dataclass
class Refuse:
    code: grpc.StatusCode
    details: str = ""


@dataclass
class Script:
    """What each method answers: a message, a Refuse, or a coroutine function of the request."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def requests(self, method: str) -> list[Any]:
        return [request for name, request in self.asked if name == method]


def _servicer(base: type, script: Script) -> Any:
    def method(name: str) -> Any:
        async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
            script.asked.append((name, request))
            said = script.answers[name]
            if callable(said):
                said = await said(request)
            if isinstance(said, Refuse):
                await context.abort(said.code, said.details)
            return said

        return answer

    names = [name for name in vars(base) if name[0].isupper()]
    return type("Scripted", (base,), {name: method(name) for name in names})()


@dataclass
class ScriptedServer:
    script: Script
    endpoint: str


@asynccontextmanager
async def scripted_server(port: int = 0) -> AsyncIterator[ScriptedServer]:
    script = Script()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    booking_pb2_grpc.add_BookingServiceServicer_to_server(
        _servicer(booking_pb2_grpc.BookingServiceServicer, script), server
    )
    ticket_pb2_grpc.add_TicketServiceServicer_to_server(
        _servicer(ticket_pb2_grpc.TicketServiceServicer, script), server
    )
    realtime_pb2_grpc.add_RealtimeServiceServicer_to_server(
        _servicer(realtime_pb2_grpc.RealtimeServiceServicer, script), server
    )
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield ScriptedServer(script, f"127.0.0.1:{bound}")
    finally:
        await server.stop(0)


async def never(request: Any) -> Any:
    await asyncio.Event().wait()
