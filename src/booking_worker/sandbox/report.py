"""What is told of a sale that has ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from booking_worker.sandbox.audit import LedgerAudit
from booking_worker.sandbox.buyer import BuyerResult
from booking_worker.sandbox.journal import AuditLine, by_item, is_admission, seconds_to_admission
from booking_worker.sandbox.promises import Broken, Place, Verdict


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that half, 95 and 99 of 100 took at most."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Report:
    """A sale in numbers. The six final statuses, and ``lost``, add up to ``joined``."""

    buyers: int
    tickets: int
    joined: int
    """Buyers whose place was acknowledged; the others were ``refused``."""
    admitted: int
    """Items that left the line to be booked."""
    sold: int
    """Tickets, by the ledger."""
    oversold: int
    lost: int
    duplicate_bookings: int
    order_inversions: int
    completed: int
    """Buyers, as the following."""
    expired: int
    cancelled: int
    sold_out: int
    rejected: int
    failed: int
    refused: int
    joins_per_second: float
    """Acknowledged, from when the first was sent until the last was answered."""
    admission_seconds: Percentiles | None
    """From the join to the admission; None when nobody was admitted."""
    seconds: float
    """From the first join until everybody knew."""
    seed: int
    chaos: Mapping[str, int] | None
    """What was done to it, and how often; None when it was left in peace."""
    broken: Sequence[Broken]
    """The promises that were not kept; must be empty."""

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        facts = asdict(self)
        facts["broken"] = [one._asdict() for one in self.broken]
        return facts


def percentiles(seconds: Sequence[float]) -> Percentiles | None:
    """Of sorted values; None when there are none."""
    if not seconds:
        return None

    def at(share: float) -> float:
        # The smallest value that at least this share does not exceed.
        return round(seconds[max(0, math.ceil(share * len(seconds)) - 1)], 3)

    return Percentiles(at(0.50), at(0.95), at(0.99))


def joins_per_second(buyers: Sequence[BuyerResult]) -> float:
    """How many joins a second were acknowledged; 0.0 when none was."""
    answered = [buyer.joined_at for buyer in buyers if buyer.joined_at is not None]
    if not answered:
        return 0.0
    took = max(answered) - min(buyer.asked_at for buyer in buyers)
    return round(len(answered) / took, 1) if took > 0 else 0.0


def report(
    *,
    tickets: int,
    seed: int,
    seconds: float,
    chaos: Mapping[str, int] | None,
    buyers: Sequence[BuyerResult],
    places: Sequence[Place],
    lines: Sequence[AuditLine],
    ledger: LedgerAudit,
    verdict: Verdict,
) -> Report:
    """Put together what is known of a sale."""
    # Who joins again after the end of a first place has another; the last is what became of them.
    last = {buyer.item_id for buyer in buyers}
    ended = Counter(place.status for place in places if place.item_id in last)
    histories = by_item(lines).values()
    return Report(
        buyers=len(buyers),
        tickets=tickets,
        joined=ended.total(),
        admitted=sum(any(is_admission(line) for line in history) for history in histories),
        sold=ledger.sold,
        oversold=verdict.oversold,
        lost=verdict.lost,
        duplicate_bookings=verdict.duplicate_bookings,
        order_inversions=verdict.order_inversions,
        completed=ended["completed"],
        expired=ended["expired"],
        cancelled=ended["cancelled"],
        sold_out=ended["sold_out"],
        rejected=ended["rejected"],
        failed=ended["failed"],
        refused=sum(not buyer.acknowledged for buyer in buyers),
        joins_per_second=joins_per_second(buyers),
        admission_seconds=percentiles(seconds_to_admission(histories)),
        seconds=round(seconds, 1),
        seed=seed,
        chaos=chaos,
        broken=verdict.broken,
    )
