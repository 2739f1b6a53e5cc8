"""The promises of the design, each judged from the engine's own keys and the world."""

from __future__ import annotations

from collections import Counter

from booking_worker.domain.model import Status
from tests.model.world import World
from tests.support import queue_audit
from tests.support.queue_audit import Keys

ENDS = ("completed", "expired", "cancelled", "sold_out_items", "rejected", "failed")


class PromiseBroken(AssertionError):
    """One of the promises does not hold."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"promise {number}: {what}")
        self.number = number


def no_more_than_were_left(keys: Keys) -> None:
    """1: nobody is admitted to seats that nobody said there were."""
    if keys.count("unlimited") != 1 and keys.count("capacity") < 0:
        raise PromiseBroken(1, f"more were admitted than were left: {keys.state}")


def never_admitted_in_vain(keys: Keys, world: World) -> None:
    """1: with honest answers and no other seller, whoever is admitted finds tickets."""
    promised = sum(
        item.seats
        for item in keys.of(frozenset({Status.PROCESSING}))
        if item.item_id not in world.booked
    )
    if keys.count("capacity") + promised > world.left:
        raise PromiseBroken(1, f"{world.left} are left, {promised} are promised: {keys.state}")


def nobody_lost(keys: Keys) -> None:
    """2: who joined is live, or counted at one end."""
    live = sum(item.status is not Status.FAILED for item in keys.items.values())
    ended = sum(map(keys.count, ENDS))
    if keys.count("seq") != live + ended:
        raise PromiseBroken(2, f"{keys.count('seq')} joined, {live} live, {ended} ended")


def in_order(before: Keys, keys: Keys) -> None:
    """3: nobody is admitted before somebody who joined earlier and waits."""
    admitted = [
        before.positions[item.item_id]
        for item in keys.items.values()
        if item.item_id in before.positions and item.status is Status.PROCESSING
    ]
    waited = [score for id_, score in keys.positions.items() if id_ in before.positions]
    if admitted and waited and max(admitted) > min(waited):
        raise PromiseBroken(3, f"{max(admitted)} was admitted before {min(waited)}")


def one_live_place(keys: Keys, places_per_user: int) -> None:
    """4: nobody has more places than allowed."""
    live = Counter(item.user_id for item in keys.items.values() if item.status is not Status.FAILED)
    if most := [user for user, places in live.items() if places > places_per_user]:
        raise PromiseBroken(4, f"too many places: {most}")


def conserved(keys: Keys) -> None:
    """6: the seats add up, and with those of the items."""
    if problems := queue_audit.balance(keys):
        raise PromiseBroken(6, "; ".join(problems))
