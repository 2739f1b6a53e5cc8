from __future__ import annotations

import pytest

from booking_worker.sandbox.audit import LedgerAudit
from booking_worker.sandbox.buyer import Behaviour, BuyerResult
from booking_worker.sandbox.journal import AuditLine
from booking_worker.sandbox.promises import Broken, Place, Verdict
from booking_worker.sandbox.report import Percentiles, joins_per_second, percentiles, report


def buyer(asked_at: float, joined_at: float | None) -> BuyerResult:
    return BuyerResult("ann", Behaviour.PAY, 1, asked_at=asked_at, joined_at=joined_at)


@pytest.mark.parametrize(
    "values, expected",
    [
        ([], None),
        ([0.5], Percentiles(0.5, 0.5, 0.5)),
        ([float(n) for n in range(1, 101)], Percentiles(50.0, 95.0, 99.0)),
        ([1.0, 2.0], Percentiles(1.0, 2.0, 2.0)),
    ],
)
def test_percentiles_are_values_that_were_seen(values: list[float], expected: Percentiles | None):
    assert percentiles(values) == expected


def test_joins_are_counted_from_the_first_question_to_the_last_answer():
    assert joins_per_second([buyer(1.0, 1.5), buyer(1.2, 3.0), buyer(1.0, None)]) == 1.0
    assert joins_per_second([buyer(1.0, None)]) == 0.0
    assert joins_per_second([]) == 0.0
    assert joins_per_second([buyer(1.0, 1.0)]) == 0.0


def test_a_report_adds_up_and_is_plain():
    statuses = ["completed", "expired", "cancelled", "sold_out", "rejected", "failed", "waiting"]
    places = [Place(f"item-{status}", "ann", status) for status in statuses]
    lines = [
        AuditLine(1000, "item-completed", "demo", "ann", "", "waiting", 2, 1, "", "1"),
        AuditLine(1500, "item-completed", "demo", "ann", "waiting", "processing", 2, 1, "", "2"),
    ]
    ledger = LedgerAudit(4, 2, *[0] * 6, True, *[0] * 9)  # type: ignore[arg-type]
    buyers = [buyer(0.0, 1.0) for _ in range(8)]
    for one, place in zip(buyers, places, strict=False):
        one.acknowledged += ["an earlier one", place.item_id]
        one.item_id = place.item_id
    places.append(Place("an earlier one", "ann", "sold_out"))
    told = report(
        tickets=4,
        seed=3,
        seconds=1.26,
        chaos={"service_killed": 1},
        buyers=buyers,
        places=places,
        lines=lines,
        ledger=ledger,
        verdict=Verdict(0, 1, 0, 0, (Broken("no loss", 1, "item-waiting"),)),
    )
    assert not told.kept
    assert (told.buyers, told.joined, told.refused, told.admitted) == (8, 7, 1, 1)
    assert told.joined == told.lost + sum(
        (told.completed, told.expired, told.cancelled, told.sold_out, told.rejected, told.failed)
    )
    assert told.sold == 2
    facts = told.as_dict()
    assert facts["admission_seconds"] == {"p50": 0.5, "p95": 0.5, "p99": 0.5}
    assert facts["broken"] == [{"promise": "no loss", "cases": 1, "example": "item-waiting"}]
    assert facts["chaos"] == {"service_killed": 1}
    assert facts["seconds"] == 1.3
