"""What each error is in gRPC and in HTTP: the one table, and the details that go with it."""

from __future__ import annotations

from typing import Final, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from booking_worker.domain import errors
from booking_worker.domain.errors import BookingWorkerError, InvalidRequest, QueueFull


class Codes(NamedTuple):
    """How an error is told on each transport."""

    grpc: grpc.StatusCode
    http: int


TABLE: Final[dict[type[BookingWorkerError], Codes]] = {
    errors.BookingWorkerError: Codes(grpc.StatusCode.INTERNAL, 500),
    errors.InvalidRequest: Codes(grpc.StatusCode.INVALID_ARGUMENT, 400),
    errors.ItemNotFound: Codes(grpc.StatusCode.NOT_FOUND, 404),
    errors.NotYourItem: Codes(grpc.StatusCode.PERMISSION_DENIED, 403),
    errors.WrongStatus: Codes(grpc.StatusCode.FAILED_PRECONDITION, 409),
    errors.QueueFull: Codes(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    errors.UserHasPlace: Codes(grpc.StatusCode.FAILED_PRECONDITION, 409),
    errors.Fenced: Codes(grpc.StatusCode.ABORTED, 409),
    errors.EngineUnavailable: Codes(grpc.StatusCode.UNAVAILABLE, 503),
    errors.PeerUnavailable: Codes(grpc.StatusCode.UNAVAILABLE, 503),
    errors.PeerBreakerOpen: Codes(grpc.StatusCode.UNAVAILABLE, 503),
    errors.PeerRefused: Codes(grpc.StatusCode.FAILED_PRECONDITION, 409),
}
"""An error that is not listed has the codes of the nearest class above it."""

_STATUS_DETAILS: Final = "grpc-status-details-bin"
_MOST_MESSAGE_CHARACTERS: Final = 500


def codes_of(error: BookingWorkerError) -> Codes:
    """The codes that an error has on each transport."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def retry_after_seconds(error: BookingWorkerError) -> float | None:
    """When to ask again, for who was told to wait; None for anybody else."""
    return error.retry_after_seconds if isinstance(error, QueueFull) else None


def message_of(error: BookingWorkerError) -> str:
    """What the caller is told, short enough for the headers that it travels in."""
    return str(error)[:_MOST_MESSAGE_CHARACTERS]


def trailing_metadata(error: BookingWorkerError) -> tuple[tuple[str, bytes], ...]:
    """The google.rpc details of an error, as they travel in gRPC; empty where it has none."""
    details = _details(error)
    if details is None:
        return ()
    packed = AnyMessage()
    packed.Pack(details)
    status = RpcStatus(
        code=codes_of(error).grpc.value[0], message=message_of(error), details=[packed]
    )
    return ((_STATUS_DETAILS, status.SerializeToString()),)


def _details(error: BookingWorkerError) -> BadRequest | RetryInfo | None:
    if isinstance(error, InvalidRequest):
        violation = BadRequest.FieldViolation(field=error.field, description=error.problem)
        return BadRequest(field_violations=[violation])
    seconds = retry_after_seconds(error)
    if seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(seconds * 1000))
        return RetryInfo(retry_delay=delay)
    return None
