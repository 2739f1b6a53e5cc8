from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_worker.domain.details import digest, pack, unpack
from booking_worker.domain.model import BookingRequest

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
requests = st.builds(
    BookingRequest,
    event_id=words,
    user_id=words,
    seat_numbers=st.lists(words, max_size=5).map(tuple),
    seats=st.integers(1, 10),
    total_amount=st.floats(0, 1e12, allow_nan=False, allow_infinity=False),
    currency=st.sampled_from(["", "EUR", "USD"]),
    metadata=st.dictionaries(words, words, max_size=5),
)


@given(requests)
def test_what_is_packed_is_unpacked(request: BookingRequest):
    assert unpack(request.event_id, request.user_id, request.seats, pack(request)) == request


def test_packed_is_readable_json():
    request = BookingRequest("e", "u", ("A1",), 1, 12.5, "EUR", {"note": "aisle"})
    assert orjson.loads(pack(request)) == [["A1"], 12.5, "EUR", {"note": "aisle"}]


@given(requests)
def test_the_order_of_metadata_makes_no_other_request(request: BookingRequest):
    turned = dict(reversed(request.metadata.items()))
    assert digest(request._replace(metadata=turned)) == digest(request)


@pytest.mark.parametrize(
    "field, value",
    [
        ("event_id", "x"),
        ("user_id", "x"),
        ("seat_numbers", ("A2",)),
        ("seat_numbers", ()),
        ("seats", 2),
        ("total_amount", 12.0),
        ("currency", "USD"),
        ("metadata", {"note": "window"}),
        ("metadata", {}),
    ],
)
def test_every_part_of_a_request_counts(field: str, value: object):
    request = BookingRequest("e", "u", ("A1",), 1, 12.5, "EUR", {"note": "aisle"})
    assert digest(request._replace(**{field: value})) != digest(request)
