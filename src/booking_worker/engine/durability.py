"""What the engine's answers are worth after a crash: asked of it, not assumed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError, ResponseError

from booking_worker.domain.errors import EngineFailed, EngineUnavailable

LOSS_WINDOWS: Final = {
    "always": "none: every answer is on disk before it is given",
    "everysec": "up to 2 seconds of answers, if the engine or its machine dies",
    "no": "whatever the system had not written yet, usually up to 30 seconds of answers, if the "
    "machine dies",
}
UNKNOWN: Final = "unknown"
CLOCK_APART_SECONDS: Final = 60.0
OLDEST_REDIS: Final = (6, 2)
WAITAOF_SINCE: Final = (7, 2)
"""The version of Redis that brought it; every Valkey has it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Needs:
    """What the service was told to rely on; see the settings of the same names."""

    replicas: int = 0
    """REDIS_WAIT_REPLICAS."""
    aof: bool = False
    """REDIS_WAIT_AOF."""


@dataclass(frozen=True, slots=True)
class Durability:
    """How the engine keeps what it acknowledged, as health and the log state it.

    Of several masters it is the weakest that counts.
    """

    fsync: str
    """``always``, ``everysec``, ``no``, or ``unknown`` where the engine does not tell."""
    appendonly: bool
    policy: str
    """What it drops when memory is short; anything but ``noeviction`` loses places."""
    version: str
    """Such as ``valkey 9.1.2``."""
    sound: bool
    """Whether nothing stands in :attr:`warnings`."""
    refusals: tuple[str, ...]
    """What about the server breaks the promises, and how it should be."""
    warnings: tuple[str, ...]
    """The refusals, and what else is not as it should be just now."""
    notes: tuple[str, ...]
    """What an operator should know once, and may have chosen."""
    loss_window: str
    """In words: what can be lost, and when."""


async def info_of_each(client: Redis | RedisCluster) -> dict[str, dict[str, Any]]:
    """INFO of each master, by its name.

    Raises ``redis.exceptions.RedisError`` when one does not answer.
    """
    if isinstance(client, RedisCluster):
        await client.initialize()
        nodes = client.get_primaries()
        return {node.name: await client.info(target_nodes=node) for node in nodes}
    info = await client.info()
    return {f"port {info.get('tcp_port', UNKNOWN)}": info}


async def read_durability(
    client: Redis | RedisCluster,
    needs: Needs = Needs(),
) -> Durability:
    """Ask the engine how durable it is, in Cluster each master.

    Raises :class:`EngineUnavailable` when one does not answer.
    """
    try:
        found = [
            (name, judge(info, *await _told_by(client, name), needs))
            for name, info in (await info_of_each(client)).items()
        ]
    except (RedisError, OSError) as error:
        raise EngineUnavailable(f"the engine does not say how durable it is: {error}") from error
    return found[0][1] if len(found) == 1 else _weakest(found)


async def _told_by(client: Redis | RedisCluster, name: str) -> tuple[dict[str, str], float]:
    """The settings of a master that matter, and by how much its clock differs from this one."""
    node = client.get_node(node_name=name) if isinstance(client, RedisCluster) else None
    where = {"target_nodes": node} if node else {}
    seconds, microseconds = await client.time(**where)
    apart = float(seconds + microseconds / 1e6 - time.time())
    settings: dict[str, str] = {}
    for setting in ("appendfsync", "save"):
        try:
            answer = await client.config_get(setting, **where)
        except ResponseError:
            # Managed servers forbid CONFIG.
            return {}, apart
        settings[setting] = str(answer.get(setting, UNKNOWN))
    return settings, apart


def judge(
    info: Mapping[str, Any],
    settings: Mapping[str, str],
    seconds_apart: float = 0,
    needs: Needs = Needs(),
) -> Durability:
    """What a master's INFO and its CONFIG amount to; ``settings`` is empty where it is forbidden.

    ``seconds_apart`` is by how much its clock differs from that of this machine.
    """
    appendonly = bool(info.get("aof_enabled"))
    fsync = settings.get("appendfsync", UNKNOWN)
    snapshots = settings.get("save", UNKNOWN)
    refusals = tuple(_refusals(info, snapshots, seconds_apart, appendonly=appendonly))
    if needs.aof:
        refusals += tuple(_refusals_to_wait(info, fsync, appendonly=appendonly))
    warnings = (*refusals, *_troubles(info, needs))
    return Durability(
        fsync=fsync,
        appendonly=appendonly,
        policy=str(info.get("maxmemory_policy", UNKNOWN)),
        version=version_of(info),
        sound=not warnings,
        refusals=refusals,
        warnings=warnings,
        notes=tuple(_notes(info, settings, appendonly=appendonly)),
        loss_window=_loss_window(fsync, snapshots, appendonly=appendonly),
    )


def log_durability(durability: Durability) -> None:
    """State it once in the log: a warning when it is not sound, or should be known."""
    say = _log.warning if durability.warnings or durability.notes else _log.info
    say(
        "engine.durability",
        version=durability.version,
        fsync=durability.fsync,
        appendonly=durability.appendonly,
        policy=durability.policy,
        loss_window=durability.loss_window,
        warnings=list(durability.warnings),
        notes=list(durability.notes),
    )


def insist(durability: Durability) -> None:
    """Raise :class:`EngineFailed` where the server as it is set up breaks the promises."""
    if durability.refusals:
        raise EngineFailed(
            "the engine cannot keep the promises as it is set up:\n"
            + "\n".join(f"- {refusal}" for refusal in durability.refusals)
            + "\nChange that, or set REDIS_STRICT=false to run all the same."
        )


def version_of(info: Mapping[str, Any]) -> str:
    """Such as ``valkey 9.1.2``, of what INFO says."""
    if "valkey_version" in info:
        return f"valkey {info['valkey_version']}"
    return f"redis {info.get('redis_version', UNKNOWN)}"


def _older(info: Mapping[str, Any], version: tuple[int, int]) -> bool:
    if "valkey_version" in info:
        return False
    numbers = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    return numbers is None or (int(numbers[1]), int(numbers[2])) < version


def _refusals(
    info: Mapping[str, Any], snapshots: str, seconds_apart: float, *, appendonly: bool
) -> Iterator[str]:
    if _older(info, OLDEST_REDIS):
        yield f"{version_of(info)} is too old: use Redis 6.2 or newer, or Valkey"
    policy = info.get("maxmemory_policy")
    if policy not in {None, "noeviction"}:
        yield f"maxmemory-policy is {policy}: short of memory it drops places; set noeviction"
    if not appendonly and not snapshots:
        yield (
            "appendonly is off and there are no snapshots: a restart of the engine loses all;"
            " set appendonly yes"
        )
    if abs(seconds_apart) > CLOCK_APART_SECONDS:
        # Set right while a sale goes on, it would end holds early, or keep them for too long.
        yield (
            f"its clock is {seconds_apart:+.0f} s from this machine's: deadlines go by the"
            " engine's; see which is wrong, and set that one right"
        )


def _refusals_to_wait(info: Mapping[str, Any], fsync: str, *, appendonly: bool) -> Iterator[str]:
    """Why a WAITAOF of REDIS_WAIT_AOF would say nothing, or not what is asked."""
    if _older(info, WAITAOF_SINCE):
        yield (
            f"{version_of(info)} has no WAITAOF, for which REDIS_WAIT_AOF asks: use Redis 7.2"
            " or newer, or Valkey"
        )
    if not appendonly:
        yield "appendonly is off while REDIS_WAIT_AOF waits for it; set appendonly yes"
    elif fsync not in {"always", UNKNOWN}:
        # https://github.com/redis/redis/pull/13793: Valkey 9.1, and Redis 7.4 until that mend, take
        # what was written within a second of a sync to be synced. With the mend callers wait for
        # that second, which is longer than they are given.
        yield (
            f"appendfsync is {fsync}, with which the server may answer REDIS_WAIT_AOF before its"
            " disk has it; set appendfsync always, on its replicas too"
        )


def _troubles(info: Mapping[str, Any], needs: Needs) -> Iterator[str]:
    if info.get("aof_last_write_status", "ok") != "ok":
        yield "the last write to the append-only file failed: is the disk full?"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield "the last snapshot failed: is the disk full, or memory short?"
    online = sum(
        isinstance(value, Mapping) and value.get("state") == "online"
        for name, value in info.items()
        if re.fullmatch(r"slave\d+", name)
    )
    if online < needs.replicas:
        yield (
            f"REDIS_WAIT_REPLICAS is {needs.replicas} and {online} replicas are connected:"
            " joins are refused until more are"
        )


def _notes(
    info: Mapping[str, Any],
    settings: Mapping[str, str],
    *,
    appendonly: bool,
) -> Iterator[str]:
    if not settings:
        yield "CONFIG is forbidden: how the engine writes to disk could not be seen"
    if "maxmemory_policy" not in info:
        yield "the engine does not tell its maxmemory-policy; it must be noeviction"
    if settings.get("save") and not appendonly:
        yield (
            "appendonly is off: a crash of the engine loses all since the last snapshot, which"
            " may be minutes; set appendonly yes"
        )


def _loss_window(fsync: str, snapshots: str, *, appendonly: bool) -> str:
    if appendonly:
        return LOSS_WINDOWS.get(fsync, "unknown: the engine does not say how it writes to disk")
    if snapshots and snapshots != UNKNOWN:
        return f"everything since the last snapshot (save {snapshots}), whenever the engine ends"
    if snapshots == UNKNOWN:
        return "everything since the last snapshot, if there is one, whenever the engine ends"
    return "everything, whenever the engine ends"


def _weakest(found: Sequence[tuple[str, Durability]]) -> Durability:
    def each(what: str) -> tuple[str, ...]:
        return tuple(f"{name}: {text}" for name, one in found for text in getattr(one, what))

    def weakness(one: Durability) -> tuple[bool, bool, int]:
        order = ("always", "everysec", "no", UNKNOWN)
        return not one.appendonly, bool(one.refusals), order.index(one.fsync)

    weakest = max((one for _, one in found), key=weakness)
    policies = sorted({one.policy for _, one in found}, key=lambda policy: policy == "noeviction")
    return Durability(
        fsync=weakest.fsync,
        appendonly=weakest.appendonly,
        policy=policies[0],
        version=min(one.version for _, one in found),
        sound=all(one.sound for _, one in found),
        refusals=each("refusals"),
        warnings=each("warnings"),
        notes=each("notes"),
        loss_window=weakest.loss_window,
    )
