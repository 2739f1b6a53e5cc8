"""grpc.health.v1: what load balancers and Kubernetes ask, answered by readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import grpc
from grpc_health.v1 import health_pb2 as pb

from booking_worker.api.health import Health
from booking_worker.api.rpc import Calls, Context, Service
from booking_worker.telemetry.metrics import Metrics

_SECONDS_BETWEEN_LOOKS = 1.0


class HealthService:
    """Serves Check and Watch for "" (all of it) and each of the named services."""

    def __init__(self, readiness: Health, names: Collection[str], metrics: Metrics) -> None:
        self._readiness = readiness
        self._names = frozenset(names) | {""}
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._watching = 0

    def service(self) -> Service:
        """What a server needs to serve it."""
        calls = Calls(self._metrics)
        return Service(
            pb.DESCRIPTOR.services_by_name["Health"],
            {
                "Check": calls.unary(pb.HealthCheckRequest, self._check),
                "List": calls.unary(pb.HealthListRequest, self._list),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self._watch,
                    request_deserializer=pb.HealthCheckRequest.FromString,
                    response_serializer=pb.HealthCheckResponse.SerializeToString,
                ),
            },
            calls,
        )

    def shut_down(self) -> int:
        """Tell those who watch NOT_SERVING, and end their streams; answers how many watch."""
        self._stopping.set()
        return self._watching

    async def _check(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return await self._status()

    async def _list(
        self, _request: pb.HealthListRequest, _context: Context
    ) -> pb.HealthListResponse:
        status = await self._status()
        return pb.HealthListResponse(statuses=dict.fromkeys(self._names, status))

    async def _watch(self, request: pb.HealthCheckRequest, context: Context) -> None:
        self._watching += 1
        try:
            await self._tell_changes(request, context)
        finally:
            self._watching -= 1

    async def _tell_changes(self, request: pb.HealthCheckRequest, context: Context) -> None:
        told = None
        while True:
            stopping = self._stopping.is_set()
            if request.service in self._names:
                response = await self._status()
            else:
                response = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
            if response.status != told:
                await context.write(response)
                told = response.status
            if stopping:
                return
            try:
                async with asyncio.timeout(_SECONDS_BETWEEN_LOOKS):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _status(self) -> pb.HealthCheckResponse:
        if await self._readiness.why_not_ready():
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.NOT_SERVING)
        return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
