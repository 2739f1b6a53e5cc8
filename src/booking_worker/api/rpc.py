"""One gRPC call: bytes in, bytes or an error out. What the servicers have in common.

Handlers are registered for raw bytes and read the message themselves: a malformed one is the
caller's mistake (INVALID_ARGUMENT), which neither server would say of its own accord. There are
no interceptors: pygrpc-native serves calls that have some on its slow path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from booking_worker.api.status_codes import codes_of, message_of, trailing_metadata
from booking_worker.domain.errors import BookingWorkerError, InvalidRequest
from booking_worker.telemetry.logs import get_logger
from booking_worker.telemetry.metrics import Metrics

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
RequestT = TypeVar("RequestT", bound=Message)

_log = get_logger(__name__)

_OUR_FAULT = 500

_NO_DEADLINE_SECONDS = 1e9
"""grpcio says None where there is no deadline, pygrpc-native a number as large as can be."""


class Calls:
    """Makes the handlers of a service; errors become status codes, and are counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._under_way = 0
        self._closed = False
        self._over = asyncio.Event()

    def close(self) -> int:
        """Turn new calls away with UNAVAILABLE; those under way go on: answers how many."""
        self._closed = True
        if not self._under_way:
            self._over.set()
        return self._under_way

    async def over(self) -> None:
        """Return once it is closed and no call is under way."""
        await self._over.wait()

    def unary(
        self,
        request_type: type[RequestT],
        answer: Callable[[RequestT, Context], Awaitable[Message]],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler of a method with one request and one answer."""
        parse = request_type.FromString
        method = request_type.__name__.removesuffix("Request")

        # pygrpc-native asks for each call whether this is a coroutine function: it must be one.
        async def serve(payload: bytes, context: Context) -> bytes:
            if self._closed:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
            self._under_way += 1
            try:
                return (await answer(parse(payload), context)).SerializeToString()
            except BookingWorkerError as error:
                await self._abort(context, method, error)
            except DecodeError:
                malformed = InvalidRequest("request", f"is no {request_type.__name__}")
                await self._abort(context, method, malformed)
            except grpc.aio.AbortError:
                raise
            except Exception:  # noqa: BLE001 - logged, and told as INTERNAL
                _log.exception("a call failed for a reason that nobody thought of", method=method)
                self._count(method, grpc.StatusCode.INTERNAL, "internal")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")
            finally:
                self._end()

        return grpc.unary_unary_rpc_method_handler(serve)

    def _end(self) -> None:
        self._under_way -= 1
        if self._closed and not self._under_way:
            self._over.set()

    async def _abort(self, context: Context, method: str, error: BookingWorkerError) -> NoReturn:
        code, http = codes_of(error)
        self._count(method, code, type(error).__name__ if http >= _OUR_FAULT else "")
        await context.abort(code, message_of(error), trailing_metadata(error))

    def _count(self, method: str, code: grpc.StatusCode, kind: str) -> None:
        self._metrics.rpc_errors.labels(method, code.name).inc()
        if kind:
            self._metrics.errors.labels(kind).inc()


@dataclass(frozen=True)
class Service:
    """A gRPC service that is ready to be served."""

    descriptor: ServiceDescriptor
    handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    calls: Calls
    """What made the handlers."""

    def __post_init__(self) -> None:
        missing = {method.name for method in self.descriptor.methods} ^ set(self.handlers)
        if missing:
            raise ValueError(f"{self.descriptor.full_name}: not in both: {sorted(missing)}")


def not_yet_streamed(why: str) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of a method with a stream of answers that answers UNIMPLEMENTED."""

    async def serve(_payload: bytes, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, why)

    return grpc.unary_stream_rpc_method_handler(serve)


def metadata_value(context: Context, wanted: str) -> str | None:
    """The first value of a metadata key of the call; None when it has none."""
    for key, value in context.invocation_metadata() or ():
        if key == wanted:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None


async def seconds_left(context: Context) -> float | None:
    """What the call's deadline leaves; None without one. Ends a call that is too late already."""
    remaining = context.time_remaining()
    if remaining is None or remaining > _NO_DEADLINE_SECONDS:
        return None
    if remaining <= 0:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late: nothing was done")
    return remaining
