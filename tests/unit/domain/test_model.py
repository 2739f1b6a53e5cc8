from __future__ import annotations

import pytest

from booking_worker.domain.model import FINAL, TRANSITIONS, BookingRequest, Status


def test_every_status_says_what_may_follow():
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize("status", Status)
def test_final_is_where_nothing_follows_but_an_operators_requeue(status: Status):
    assert status.is_final == (status in FINAL)
    assert status.is_final == (not TRANSITIONS[status] or status is Status.FAILED)


def test_final_statuses_are_those_of_the_design():
    assert {str(status) for status in FINAL} == {
        "completed", "expired", "cancelled", "sold_out", "rejected", "failed",
    }  # fmt: skip


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.RELEASING}))
def test_clients_see_the_status_itself(status: Status):
    assert status.shown is status


def test_a_hold_being_released_still_shows_that_it_awaits_payment():
    assert Status.RELEASING.shown is Status.AWAITING_PAYMENT


def test_clients_never_see_a_final_status_change_except_for_a_requeued_dead_letter():
    shown = {(before.shown, after.shown) for before, many in TRANSITIONS.items() for after in many}
    assert {before for before, _ in shown if before.is_final} == {Status.FAILED}


def test_every_status_can_be_reached_from_the_line_and_leads_to_an_end():
    reached, todo = set(), [Status.WAITING]
    while todo:
        status = todo.pop()
        if status not in reached:
            reached.add(status)
            todo.extend(TRANSITIONS[status])
    assert reached == set(Status)
    ends = set(FINAL)
    while more := {s for s, many in TRANSITIONS.items() if many & ends} - ends:
        ends |= more
    assert ends == set(Status)


def test_the_metadata_that_requests_have_when_none_is_given_cannot_be_changed():
    with pytest.raises(TypeError):
        BookingRequest("e", "u").metadata["for"] = "all"  # type: ignore[index]
