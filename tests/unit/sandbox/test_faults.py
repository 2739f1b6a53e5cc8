from __future__ import annotations

from collections import Counter

import pytest

from booking_worker.sandbox.faults import Fault, Faults


def test_without_faults_nothing_happens() -> None:
    faults = Faults()
    assert {faults.draw() for _ in range(100)} == {(Fault.NONE, 0.0)}


def test_down_is_every_call_at_once() -> None:
    faults = Faults(latency_ms=500, down=True)
    assert {faults.draw() for _ in range(100)} == {(Fault.ERROR, 0.0)}


def test_latency_is_a_mean_with_jitter() -> None:
    faults = Faults(latency_ms=100, seed=1)
    delays = [faults.draw().delay_seconds for _ in range(2000)]
    assert 0.05 <= min(delays) < 0.06
    assert 0.14 < max(delays) <= 0.15
    assert sum(delays) / len(delays) == pytest.approx(0.1, rel=0.05)


def test_rates_and_shares() -> None:
    faults = Faults(error_rate=0.2, lost_answer_rate=0.3, hang_share=0.25, seed=1)
    drawn = Counter(faults.draw().fault for _ in range(10_000))
    assert drawn[Fault.ERROR] == pytest.approx(2000, rel=0.1)
    assert drawn[Fault.HANG] == pytest.approx(750, rel=0.15)
    assert drawn[Fault.LOST] == pytest.approx(2250, rel=0.1)


@pytest.mark.parametrize(
    "fault, is_lost",
    [(Fault.NONE, False), (Fault.ERROR, False), (Fault.LOST, True), (Fault.HANG, True)],
)
def test_which_answers_are_lost(fault: Fault, is_lost: bool) -> None:
    assert Faults().draw()._replace(fault=fault).answer_is_lost is is_lost


def _drawn(faults: Faults) -> list[Fault]:
    return [faults.draw().fault for _ in range(50)]


def test_the_same_seed_gives_the_same_faults() -> None:
    assert _drawn(Faults(error_rate=0.5, seed=7)) == _drawn(Faults(error_rate=0.5, seed=7))
    assert _drawn(Faults(error_rate=0.5, seed=7)) != _drawn(Faults(error_rate=0.5, seed=8))


def test_a_copy_has_the_same_rates_and_other_luck() -> None:
    first = Faults(1.0, 0.5, 0.2, 0.1, 3, refuse=True, malformed=True, down=False, seed=7)
    ticket, booking = first.copy_for("ticket"), first.copy_for("booking")
    assert (ticket.latency_ms, ticket.error_rate, ticket.lost_answer_rate) == (1.0, 0.5, 0.2)
    assert (ticket.hang_share, ticket.overstate, ticket.refuse) == (0.1, 3, True)
    assert (ticket.malformed, ticket.down) == (True, False)
    assert _drawn(ticket) != _drawn(booking)
    assert first.copy_for("ticket").seed == ticket.seed


def test_becoming_another_takes_all_but_the_luck() -> None:
    faults = Faults(seed=7)
    faults.become(Faults(1.0, 0.5, 0.2, 0.1, 3, refuse=True, malformed=True, down=True, seed=9))
    assert faults == Faults(1.0, 0.5, 0.2, 0.1, 3, refuse=True, malformed=True, down=True, seed=7)
