"""What a sale is; that one is held, and judged, is shown in tests/acceptance."""

from __future__ import annotations

from pathlib import Path

import pytest

from booking_worker.config import Settings, load
from booking_worker.sandbox.demo import Sale


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
