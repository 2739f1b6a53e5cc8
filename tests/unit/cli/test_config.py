from __future__ import annotations

from pathlib import Path

import pytest

from booking_worker.config import Settings
from tests.unit.cli.conftest import Command


def test_every_setting_is_told_with_where_it_came_from(
    command: Command, no_settings: Path, monkeypatch: pytest.MonkeyPatch
):
    (no_settings / ".env").write_text("HTTP_PORT=81\nGRPC_PORT=70\n")
    monkeypatch.setenv("GRPC_PORT", "6000")
    told = {one["name"]: one for one in command("config", "--json").json}
    assert list(told) == [name.upper() for name in Settings.model_fields]
    assert (told["GRPC_PORT"]["value"], told["GRPC_PORT"]["source"]) == ("6000", "environment")
    assert (told["HTTP_PORT"]["value"], told["HTTP_PORT"]["source"]) == ("81", ".env")
    assert told["METRICS_PORT"]["source"] == "default"
    assert all(one["explanation"] for one in told.values())


def test_people_get_a_table(command: Command):
    lines = command("config").out.splitlines()
    (line,) = (line for line in lines if line.split()[0] == "QUEUE_CLEANUP_INTERVAL")
    assert line.split()[:3] == ["QUEUE_CLEANUP_INTERVAL", "30s", "default"]


def test_a_wrong_setting_is_named(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRPC_PORT", "many")
    monkeypatch.setenv("WORKER_POOL_SIZE", "0")
    ran = command("config")
    assert ran.code == 2
    assert ran.err == (
        "Error: GRPC_PORT: got 'many', takes a port from 1 to 65535, or 0 for any free one\n"
        "Error: WORKER_POOL_SIZE: got '0', takes a whole number from 1 to 10000\n"
    )
