from __future__ import annotations

import pytest

from booking_worker.config import Settings, explain, load

NAMES = [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_explained_in_a_line(name: str):
    (one,) = (one for one in explain(load()) if one.name == name)
    assert one.explanation.endswith(".")
    assert len(one.explanation) < 100


def test_values_are_shown_as_they_are_written():
    shown = {
        one.name: one.value for one in explain(load(overrides={"payment_grace_seconds": 0.25}))
    }
    assert shown["QUEUE_CLEANUP_INTERVAL"] == "30s"
    assert shown["PAYMENT_TIMEOUT_SECONDS"] == "600"
    assert shown["PAYMENT_GRACE_SECONDS"] == "0.25"
    assert shown["METRICS_ENABLED"] == "true"
    assert shown["GRPC_TLS_CERT"] == ""
    assert shown["REDIS_LOCK_NODES"] == ""
    assert shown["DATA_DIR"] == "data"


def test_addresses_are_shown_as_they_are_written():
    settings = load(overrides={"redis_lock_nodes": "one:1, [::1]:2"})
    assert "one:1,[::1]:2" in {one.value for one in explain(settings)}


def test_secrets_are_hidden():
    def shown(**given: str) -> str:
        return {one.name: one.value for one in explain(load(overrides=given))}["REDIS_PASSWORD"]

    assert shown(redis_password="hunter2") == "********"
    assert shown() == ""


def test_settings_made_by_hand_are_all_defaults_or_given():
    assert {one.source for one in explain(Settings())} == {"default"}
