"""What the engine's word is worth is asked of it, and said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from structlog.testing import capture_logs

from booking_worker.domain.errors import EngineFailed, EngineUnavailable
from booking_worker.engine.durability import (
    Needs,
    insist,
    judge,
    log_durability,
    read_durability,
)
from tests.support.engines import CLUSTER, EngineFactory, Engines, SharedServers, engine_on
from tests.support.servers import Cluster, sentinel, standalone
from tests.support.wait import wait_until

NEEDS = Needs(replicas=2)
EVERYSEC = {"appendfsync": "everysec", "save": ""}
ALWAYS = {"appendfsync": "always", "save": ""}
GOOD: dict[str, Any] = {
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "maxmemory_policy": "noeviction",
    "redis_version": "7.0.15",
}
VALKEY = GOOD | {"valkey_version": "9.1.2"}


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
        ({"maxmemory_policy": "volatile-ttl"}, "set noeviction"),
        ({"aof_enabled": 0}, "set appendonly yes"),
        ({"redis_version": "6.0.16"}, "too old"),
        ({"redis_version": "5"}, "too old"),
    ],
)
def test_a_setting_that_breaks_a_promise_is_refused(change: dict[str, Any], word: str) -> None:
    insist(judge(GOOD, ALWAYS))
    durability = judge(GOOD | change, ALWAYS)
    assert not durability.sound
    [refusal] = durability.refusals
    assert word in refusal
    assert durability.warnings == (refusal,)
    with pytest.raises(EngineFailed, match="REDIS_STRICT=false") as caught:
        insist(durability)
    assert refusal in str(caught.value)


@pytest.mark.parametrize("apart", [-61, 61])
def test_a_clock_that_is_far_off_is_refused(apart: float) -> None:
    assert judge(GOOD, ALWAYS, apart - apart / 61).sound
    durability = judge(GOOD, ALWAYS, apart)
    [refusal] = durability.refusals
    assert f"{apart:+d} s from this machine's" in refusal
    assert durability.warnings == (refusal,)
    assert durability.notes == ()
    with pytest.raises(EngineFailed, match="REDIS_STRICT=false"):
        insist(durability)


async def test_the_clock_is_asked_of_the_engine(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [text for text in (await read_durability(redis_client)).refusals if "clock" in text]
    now = time.time()
    monkeypatch.setattr("booking_worker.engine.durability.time.time", lambda: now - 3600)
    [refusal] = [text for text in (await read_durability(redis_client)).refusals if "clock" in text]
    assert refusal.startswith("its clock is +36")


@pytest.mark.parametrize(
    "change, needs, word",
    [
        ({"aof_last_write_status": "err"}, Needs(), "disk full"),
        ({"rdb_last_bgsave_status": "err"}, Needs(), "disk full"),
        ({"slave0": {"state": "online"}, "slave1": {"state": "wait_bgsave"}}, NEEDS, "1 replicas"),
    ],
)
def test_what_is_wrong_just_now_is_a_warning_and_no_reason_to_stay_away(
    change: dict[str, Any], needs: Needs, word: str
) -> None:
    durability = judge(GOOD | change, ALWAYS, needs=needs)
    [warning] = durability.warnings
    assert word in warning
    insist(durability)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"redis_version": "7.0.15"}, "has no WAITAOF"),
        ({"redis_version": "7.2.0", "aof_enabled": 0}, "while REDIS_WAIT_AOF waits for it"),
    ],
)
def test_a_server_that_cannot_do_what_is_waited_for_is_refused(
    change: dict[str, Any], word: str
) -> None:
    snapshots = {**ALWAYS, "save": "900 1"}
    assert judge(GOOD | change, snapshots).refusals == ()
    [refusal] = judge(GOOD | change, snapshots, needs=Needs(aof=True)).refusals
    assert word in refusal


@pytest.mark.parametrize("fsync, refused", [("everysec", 1), ("no", 1), ("always", 0)])
def test_a_wait_for_the_disk_needs_a_server_that_syncs_before_it_answers(fsync: str, refused: int):
    settings = ALWAYS | {"appendfsync": fsync}
    assert judge(VALKEY, settings).refusals == ()
    refusals = judge(VALKEY, settings, needs=Needs(aof=True)).refusals
    assert len(refusals) == refused
    assert all("set appendfsync always" in refusal for refusal in refusals)


def test_where_config_is_forbidden_a_wait_for_the_disk_is_believed():
    assert judge(VALKEY, {}, needs=Needs(aof=True)).refusals == ()


def test_as_many_replicas_as_are_waited_for_are_enough() -> None:
    replicas = {f"slave{at}": {"state": "online"} for at in range(2)}
    assert judge(GOOD | replicas, ALWAYS, needs=NEEDS).sound


@pytest.mark.parametrize(
    "change, settings, word",
    [
        ({}, {}, "CONFIG is forbidden"),
        ({"maxmemory_policy": None}, ALWAYS, "does not tell its maxmemory-policy"),
        ({"aof_enabled": 0}, {**ALWAYS, "save": "900 1"}, "the last snapshot"),
    ],
)
def test_what_an_operator_may_have_chosen_is_a_note(
    change: dict[str, Any], settings: dict[str, str], word: str
) -> None:
    info = {name: value for name, value in (GOOD | change).items() if value is not None}
    durability = judge(info, settings)
    assert durability.sound
    [note] = durability.notes
    assert word in note
    assert judge(GOOD, ALWAYS).notes == ()


def test_every_valkey_is_new_enough() -> None:
    info = GOOD | {"valkey_version": "7.2.5", "redis_version": "1.0.0"}
    assert judge(info, ALWAYS, needs=Needs(aof=True)).notes == ()


@pytest.mark.parametrize(
    "aof, settings, window",
    [
        (1, ALWAYS, "none"),
        (1, EVERYSEC, "up to 2 seconds"),
        (1, {"appendfsync": "no", "save": ""}, "whatever the system"),
        (1, {}, "unknown"),
        (0, {**ALWAYS, "save": "900 1"}, "everything since the last snapshot (save 900 1)"),
        (0, {}, "everything since the last snapshot, if there is one"),
        (0, ALWAYS, "everything, whenever"),
    ],
)
def test_what_can_be_lost_is_said(aof: int, settings: dict[str, str], window: str) -> None:
    assert judge(GOOD | {"aof_enabled": aof}, settings).loss_window.startswith(window)


async def test_a_server_that_forbids_config_leaves_fsync_unknown() -> None:
    options = {"user": "joe on >pw ~* &* +@all -config"}
    async with standalone(options=options) as server:
        server.username, server.password = "joe", "pw"
        async with server.client() as client:
            durability = await read_durability(client)
    assert durability.fsync == "unknown"
    assert durability.loss_window.startswith("unknown")
    assert durability.sound
    assert [note for note in durability.notes if "CONFIG is forbidden" in note]


async def test_a_server_that_says_nothing_is_unavailable() -> None:
    with pytest.raises(EngineUnavailable):
        await read_durability(Redis(port=1, retry=Retry(NoBackoff(), 0)))


async def test_a_replica_that_is_waited_for_is_missed_when_it_is_gone() -> None:
    async with sentinel() as made, engine_on(made).client() as client:
        assert (await read_durability(client, Needs(replicas=1))).sound
        await (await made.replica()).kill()

        async def missed() -> bool:
            durability = await read_durability(client, Needs(replicas=1))
            return any("0 replicas are connected" in text for text in durability.warnings)

        await wait_until(missed)


async def test_the_weakest_master_of_a_cluster_counts_and_is_named(engines: Engines) -> None:
    shared = engines.get(CLUSTER)
    assert isinstance(shared, SharedServers)
    assert isinstance(shared.made, Cluster)
    bad = shared.made.nodes[1]
    every = "CONFIG", "SET", "appendonly"
    for node in shared.made.nodes:
        await node.ask(*every, "yes")
    try:
        async with shared.client() as client:
            assert (await read_durability(client)).sound
            await bad.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            await bad.ask(*every, "no")
            durability = await read_durability(client)
    finally:
        await bad.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        for node in shared.made.nodes:
            await node.ask(*every, "no")
    assert durability.policy == "allkeys-lru"
    assert not durability.appendonly
    assert durability.loss_window.startswith("everything")
    assert len(durability.refusals) == 2
    assert all(refusal.startswith(f"{bad.endpoint}: ") for refusal in durability.refusals)


@pytest.mark.parametrize(
    "change, settings, level",
    [({}, ALWAYS, "info"), ({"aof_enabled": 0}, ALWAYS, "warning"), ({}, {}, "warning")],
)
def test_it_is_one_log_line_and_a_warning_when_something_should_be_known(
    change: dict[str, Any], settings: dict[str, str], level: str
) -> None:
    with capture_logs() as lines:
        log_durability(judge(GOOD | change, settings))
    [line] = lines
    assert line["log_level"] == level
    assert line["version"] == "redis 7.0.15"
    assert line["loss_window"]
