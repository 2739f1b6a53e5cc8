"""What the engine's word is worth is asked of it, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from booking_worker.engine.durability import judge, log_durability, read_durability
from tests.support.engines import EngineFactory

GOOD: dict[str, Any] = {
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "maxmemory_policy": "noeviction",
    "redis_version": "7.0.15",
}


@pytest.mark.parametrize("fsync, window", [("always", "none"), ("everysec", "up to 2 seconds")])
async def test_an_embedded_engine_is_sound_and_says_what_may_be_lost(
    engine_factory: EngineFactory, tmp_path: Path, fsync: Any, window: str
) -> None:
    engine = engine_factory(tmp_path, fsync)
    await engine.start()
    try:
        async with engine.client() as client:
            durability = await read_durability(client)
    finally:
        await engine.stop()
    assert durability.sound
    assert durability.warnings == ()
    assert durability.appendonly
    assert durability.fsync == fsync
    assert durability.policy == "noeviction"
    assert durability.loss_window.startswith(window)
    assert durability.version.split()[0] == engine_factory.name.removesuffix(
        "-server"
    ).removesuffix("lite")


async def test_what_was_set_otherwise_meanwhile_is_seen(redis_client: Redis) -> None:
    await redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        durability = await read_durability(redis_client)
    finally:
        await redis_client.config_set("maxmemory-policy", "noeviction")
    assert durability.policy == "allkeys-lru"
    assert not durability.sound
    assert any("noeviction" in warning for warning in durability.warnings)
    assert any("appendonly" in warning for warning in durability.warnings), "shared: no file"
    assert durability.loss_window.startswith("everything")


@pytest.mark.parametrize(
    "change, word",
    [
        ({"maxmemory_policy": "volatile-ttl"}, "volatile-ttl"),
        ({"aof_enabled": 0}, "appendonly is off"),
        ({"aof_last_write_status": "err"}, "disk full"),
    ],
)
def test_each_thing_that_is_wrong_is_a_warning(change: dict[str, Any], word: str) -> None:
    assert judge(GOOD, "always").sound
    durability = judge(GOOD | change, "always")
    assert not durability.sound
    [warning] = durability.warnings
    assert word in warning


async def test_a_server_that_forbids_config_leaves_fsync_unknown(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbidden(name: str) -> None:
        raise ResponseError("unknown command 'CONFIG'")

    monkeypatch.setattr(redis_client, "config_get", forbidden)
    assert (await read_durability(redis_client)).fsync == "unknown"
    assert judge(GOOD, "unknown").loss_window.startswith("unknown")


@pytest.mark.parametrize("change, level", [({}, "info"), ({"aof_enabled": 0}, "warning")])
def test_it_is_one_log_line_and_a_warning_when_not_sound(
    change: dict[str, Any], level: str
) -> None:
    with capture_logs() as lines:
        log_durability(judge(GOOD | change, "always"))
    [line] = lines
    assert line["log_level"] == level
    assert line["version"] == "redis 7.0.15"
    assert line["loss_window"]
