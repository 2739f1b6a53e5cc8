"""What the engine's answers are worth after a crash: asked of it, not assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

LOSS_WINDOWS: Final = {
    "always": "none: every answer is on disk before it is given",
    "everysec": "up to 2 seconds of answers, if the engine or its machine dies",
    "no": "whatever the system had not written yet, usually up to 30 seconds of answers, if the "
    "machine dies",
}
UNKNOWN: Final = "unknown"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Durability:
    """How the engine keeps what it acknowledged, as health and the log state it."""

    fsync: str
    """``always``, ``everysec``, ``no``, or ``unknown`` where the engine does not tell."""
    appendonly: bool
    policy: str
    """What it drops when memory is short; anything but ``noeviction`` loses places."""
    version: str
    """Such as ``valkey 9.1.2``."""
    sound: bool
    """Whether nothing stands in :attr:`warnings`."""
    warnings: tuple[str, ...]
    loss_window: str
    """In words: what can be lost, and when."""


async def read_durability(client: Redis) -> Durability:
    """Ask the engine how durable it is.

    Raises ``redis.exceptions.RedisError`` when it does not answer.
    """
    info = await client.info()
    fsync = await _setting(client, "appendfsync")
    return judge(info, fsync)


def judge(info: dict[str, Any], fsync: str) -> Durability:
    """What an engine's INFO and its ``appendfsync`` amount to."""
    appendonly = bool(info.get("aof_enabled"))
    policy = str(info.get("maxmemory_policy", UNKNOWN))
    warnings = tuple(_warnings(info, policy, appendonly=appendonly))
    return Durability(
        fsync=fsync,
        appendonly=appendonly,
        policy=policy,
        version=_version(info),
        sound=not warnings,
        warnings=warnings,
        loss_window=_loss_window(fsync, appendonly=appendonly),
    )


def log_durability(durability: Durability) -> None:
    """State it once in the log: a warning when it is not sound."""
    say = _log.info if durability.sound else _log.warning
    say(
        "engine.durability",
        version=durability.version,
        fsync=durability.fsync,
        appendonly=durability.appendonly,
        policy=durability.policy,
        loss_window=durability.loss_window,
        warnings=list(durability.warnings),
    )


async def _setting(client: Redis, name: str) -> str:
    try:
        found = await client.config_get(name)
    except ResponseError:
        # Managed servers forbid CONFIG.
        return UNKNOWN
    return str(found.get(name, UNKNOWN))


def _warnings(info: dict[str, Any], policy: str, *, appendonly: bool) -> Iterator[str]:
    if policy != "noeviction":
        yield f"maxmemory-policy is {policy}: short of memory it drops places; set noeviction"
    if not appendonly:
        yield "appendonly is off: a restart of the engine may lose all; set appendonly yes"
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield "the last write to the append-only file failed: is the disk full?"


def _loss_window(fsync: str, *, appendonly: bool) -> str:
    if not appendonly:
        return "everything since the last snapshot, if there is one, whenever the engine ends"
    return LOSS_WINDOWS.get(fsync, "unknown: the engine does not say how it writes to disk")


def _version(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"valkey {info['valkey_version']}"
    return f"redis {info.get('redis_version', UNKNOWN)}"
