from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_worker.api import validation
from booking_worker.domain import details
from booking_worker.domain.errors import InvalidRequest, ItemNotFound
from booking_worker.domain.model import BookingRequest

MAX_SEATS = 4


@dataclass
class Asked:
    """What a transport without protobuf would hand over."""

    user_id: str = "ann"
    event_id: str = "concert"
    seat_numbers: Sequence[str] = ()
    seat_count: int = 1
    total_amount: float = 0.0
    currency: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def field_of(asked: Asked) -> str:
    with pytest.raises(InvalidRequest) as caught:
        validation.booking_request(asked, MAX_SEATS)
    return caught.value.field


def test_a_request_comes_out_checked_and_complete():
    asked = Asked(
        seat_numbers=["A1", "A2"],
        seat_count=0,
        total_amount=12.5,
        currency="EUR",
        metadata={"k": "v"},
    )
    assert validation.booking_request(asked, MAX_SEATS) == BookingRequest(
        event_id="concert",
        user_id="ann",
        seat_numbers=("A1", "A2"),
        seats=2,
        total_amount=12.5,
        currency="EUR",
        metadata={"k": "v"},
    )


@pytest.mark.parametrize("count", [1, 4])
def test_seats_may_be_counted(count: int):
    assert validation.booking_request(Asked(seat_count=count), MAX_SEATS).seats == count


@pytest.mark.parametrize(
    "asked, at_fault",
    [
        (Asked(user_id=""), "user_id"),
        (Asked(event_id="\ud800"), "event_id"),
        (Asked(seat_count=0), "seat_count"),
        (Asked(seat_count=5), "seat_count"),
        (Asked(seat_count=-(2**31)), "seat_count"),
        (Asked(seat_count=2, seat_numbers=["A"]), "seat_count"),
        (Asked(seat_count=4, seat_numbers=["A"] * 5), "seat_count"),
        (Asked(seat_count=0, seat_numbers=["A"] * 5), "seat_numbers"),
        (Asked(seat_count=2, seat_numbers=["A", "A"]), "seat_numbers"),
        (Asked(seat_numbers=[""]), "seat_numbers"),
        (Asked(total_amount=float("nan"), currency="EUR"), "total_amount"),
        (Asked(total_amount=float("inf"), currency="EUR"), "total_amount"),
        (Asked(total_amount=-1e-9, currency="EUR"), "total_amount"),
        (Asked(total_amount=1.0), "currency"),
        (Asked(currency="eu"), "currency"),
        (Asked(metadata={str(n): "" for n in range(33)}), "metadata"),
        (Asked(metadata={"k": "x" * 4096}), "metadata"),
        (Asked(metadata={"k": "\ud800"}), "metadata"),
        (Asked(metadata={"\x7f": ""}), "metadata"),
    ],
)
def test_the_first_wrong_field_is_named(asked: Asked, at_fault: str):
    assert field_of(asked) == at_fault


text = st.text(max_size=140)


@given(
    st.builds(
        Asked,
        user_id=text,
        event_id=text,
        seat_numbers=st.lists(text, max_size=6),
        seat_count=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 6),
        total_amount=st.floats(),
        currency=st.text(max_size=4),
        metadata=st.dictionaries(text, text, max_size=40),
    )
)
def test_whatever_comes_is_refused_by_a_field_or_fit_for_the_queue(asked: Asked):
    try:
        request = validation.booking_request(asked, MAX_SEATS)
    except InvalidRequest as error:
        request, field = None, error.field
    if request is None:
        assert hasattr(asked, field)
        return
    assert 1 <= request.seats <= MAX_SEATS
    packed = details.pack(request)
    assert details.unpack(request.event_id, request.user_id, request.seats, packed) == request
    assert not set("{} ") & set(request.event_id + request.user_id)


def test_an_item_id_gives_its_event():
    assert validation.event_of_item("AAAAAAAAAAAA.concert") == "concert"


@pytest.mark.parametrize("item_id", ["", "a\x00", "x" * 1025, "\ud800"])
def test_what_can_be_no_item_id_is_a_wrong_field(item_id: str):
    with pytest.raises(InvalidRequest) as caught:
        validation.event_of_item(item_id)
    assert caught.value.field == "queue_item_id"


@pytest.mark.parametrize("item_id", ["x", "AAAAAAAAAAAA.{}", "AAAAAAAAAAAA"])
def test_what_is_no_item_id_of_ours_is_not_found(item_id: str):
    with pytest.raises(ItemNotFound):
        validation.event_of_item(item_id)


@pytest.mark.parametrize(
    "check, name, good, bad",
    [
        (validation.user_id, "user_id", ["a", "x" * 128], ["", "a b", "x" * 129]),
        (validation.event_id, "event_id", ["a", "x" * 128], ["", "{", "x" * 129]),
        (validation.idempotency_key, "idempotency-key", ["a b", "x" * 128], ["", "\n", "x" * 129]),
        (
            validation.payment_reference,
            "payment_reference",
            ["a b", "x" * 256],
            ["", "\n", "x" * 257],
        ),
        (validation.reason, "reason", ["", "a\nb", "x" * 500], ["x" * 501]),
        (validation.service_name, "service", ["", "a.b.C"], ["\n", "x" * 129]),
    ],
)
def test_single_fields(check, name, good, bad):
    for value in good:
        assert check(value) == value
    for value in bad:
        with pytest.raises(InvalidRequest) as caught:
            check(value)
        assert caught.value.field == name
