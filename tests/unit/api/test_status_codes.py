from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from booking_worker.api.status_codes import (
    TABLE,
    codes_of,
    message_of,
    retry_after_seconds,
    trailing_metadata,
)
from booking_worker.domain import errors

SAMPLES = [
    errors.BookingWorkerError("x"),
    errors.InvalidSettings(["x"]),
    errors.InvalidRequest("user_id", "is missing"),
    errors.IdempotencyConflict(),
    errors.ItemNotFound("i"),
    errors.NotYourItem("i"),
    errors.WrongStatus("i", "completed", "cancel"),
    errors.QueueFull("e", 3),
    errors.UserHasPlace("i"),
    errors.Fenced("i", 1),
    errors.EngineUnavailable("x"),
    errors.EngineInUse("x"),
    errors.EngineFailed("x"),
    errors.LayoutTooNew(2, 1),
    errors.PeerError("p", "x"),
    errors.PeerUnavailable("p", "x"),
    errors.PeerRefused("p", "x"),
    errors.PeerBreakerOpen("p", "x"),
]


def tree(kind: type[errors.BookingWorkerError]) -> set[type]:
    return {kind}.union(*(tree(sub) for sub in kind.__subclasses__()))


def test_every_error_of_the_tree_is_in_this_test():
    ours = {kind for kind in tree(errors.BookingWorkerError) if kind.__module__ == errors.__name__}
    assert {type(sample) for sample in SAMPLES} == ours


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_has_codes_that_agree(error):
    code, http = codes_of(error)
    assert code is not grpc.StatusCode.OK
    assert (http >= 500) == (
        code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN}
    )


def test_the_table_is_that_of_the_design():
    assert {kind.__name__: (code.name, http) for kind, (code, http) in TABLE.items()}.items() >= {
        "InvalidRequest": ("INVALID_ARGUMENT", 400),
        "NotYourItem": ("PERMISSION_DENIED", 403),
        "ItemNotFound": ("NOT_FOUND", 404),
        "WrongStatus": ("FAILED_PRECONDITION", 409),
        "QueueFull": ("RESOURCE_EXHAUSTED", 429),
        "EngineUnavailable": ("UNAVAILABLE", 503),
    }.items()


def test_an_error_that_is_not_listed_is_what_it_is_a_kind_of():
    assert codes_of(errors.IdempotencyConflict()).grpc is grpc.StatusCode.INVALID_ARGUMENT
    assert codes_of(errors.PeerError("p", "x")).grpc is grpc.StatusCode.INTERNAL


def details(error: errors.BookingWorkerError) -> Status:
    ((key, value),) = trailing_metadata(error)
    assert key == "grpc-status-details-bin"
    return Status.FromString(value)


def test_a_wrong_field_travels_as_a_bad_request():
    status = details(errors.InvalidRequest("user_id", "is missing"))
    assert (status.code, status.message) == (3, "user_id: is missing")
    bad_request = BadRequest()
    assert status.details[0].Unpack(bad_request)
    (violation,) = bad_request.field_violations
    assert (violation.field, violation.description) == ("user_id", "is missing")


def test_a_full_queue_says_when_to_come_back():
    status = details(errors.QueueFull("e", 3))
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 5000
    assert retry_after_seconds(errors.QueueFull("e", 3)) == 5.0


def test_other_errors_have_no_details():
    assert trailing_metadata(errors.ItemNotFound("i")) == ()
    assert retry_after_seconds(errors.ItemNotFound("i")) is None


def test_a_message_fits_into_a_header():
    assert len(message_of(errors.EngineUnavailable("x" * 10_000))) == 500
