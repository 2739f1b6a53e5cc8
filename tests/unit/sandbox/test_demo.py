"""What a sale is; that one is held, and judged, is shown in tests/acceptance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from booking_worker.config import Settings, load
from booking_worker.sandbox.audit import LedgerAudit
from booking_worker.sandbox.buyer import Behaviour, BuyerResult
from booking_worker.sandbox.demo import Sale, broken_beside
from booking_worker.sandbox.promises import Place


@pytest.mark.parametrize("chaos", [False, True])
@pytest.mark.parametrize("buyers", [1, 2_000, 200_000])
def test_its_settings_are_those_of_the_service_and_fit_together(
    buyers: int, chaos: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    sale = Sale(buyers=buyers, chaos=chaos)
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in sale.settings().items():
        assert name.lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.queue_max_size >= buyers
    assert settings.worker_lease_seconds > settings.peer_timeout_seconds
    assert settings.queue_timeout_seconds > settings.payment_timeout_seconds
    assert settings.engine_fsync == "always"


def test_harm_is_done_while_people_come():
    assert Sale().arrive_seconds == 0
    for buyers in (200, 2_000, 20_000):
        sale = Sale(buyers=buyers, chaos=True)
        assert 0 < sale.arrive_seconds < sale.chaos_seconds <= 60


def told(user_id: str = "ann", **facts: Any) -> BuyerResult:
    return BuyerResult(user_id, Behaviour.PAY, 1, **facts)


def found(
    sale: Sale, *buyers: BuyerResult, status: str = "completed", refusals: int = 0
) -> set[str]:
    ledger = LedgerAudit(*[0] * 8, True, 0, 0, refusals, *[0] * 6)  # type: ignore[arg-type]
    broken = broken_beside(sale, buyers, [Place("item", "ann", status)], ledger)
    return {one.promise for one in broken}


@pytest.mark.parametrize("sale", [Sale(), Sale(chaos=True)], ids=["calm", "chaos"])
def test_what_must_not_happen_in_any_demo_is_seen(sale: Sale):
    assert found(sale, told()) == set()
    late = told(refused="FAILED_PRECONDITION: it is expired")
    assert found(sale, late) == set()
    assert found(sale, told(unexpected="INTERNAL: internal error")) == {"nobody is refused"}
    assert found(sale, told(two_places=True)) == {"one place each"}
    assert found(sale, told(), refusals=1) == {"nobody is admitted in vain"}
    assert found(sale, told(), status="rejected") == {"nothing fails"}


def test_a_dead_letter_is_for_an_operator_where_peers_fail_and_nowhere_else():
    assert found(Sale(), told(), status="failed") == {"nothing fails"}
    assert found(Sale(chaos=True), told(), status="failed") == set()
