"""The engine that the settings name."""

from __future__ import annotations

from booking_worker.config.settings import Settings
from booking_worker.engine.durability import Needs
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.engine import Engine
from booking_worker.engine.redis import Access, RedisEngine, Tls


def engine_of(settings: Settings) -> Engine:
    """The engine that the settings name, not started."""
    if settings.engine == "embedded":
        return EmbeddedEngine(settings.data_dir, settings.engine_fsync)
    return RedisEngine(
        (settings.redis_host, settings.redis_port),
        access_of(settings),
        database=settings.redis_database,
        sentinels=settings.redis_sentinels,
        master=settings.redis_sentinel_master,
        cluster=settings.redis_cluster,
    )


def access_of(settings: Settings) -> Access:
    """What the servers of ENGINE=redis are told and shown."""
    tls = None
    if settings.redis_tls:
        tls = Tls(settings.redis_tls_ca, settings.redis_tls_cert, settings.redis_tls_key)
    return Access(settings.redis_username, settings.redis_password.get_secret_value(), tls)


def needs_of(settings: Settings) -> Needs:
    """What the engine is relied on for."""
    if settings.engine == "embedded":
        return Needs()
    return Needs(settings.redis_wait_replicas, settings.redis_wait_aof)
