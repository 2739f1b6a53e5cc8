from __future__ import annotations

from pathlib import Path

from booking_worker.config import load
from booking_worker.config.engines import access_of, engine_of, needs_of
from booking_worker.engine.durability import Needs
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.redis import Access, Tls


def described(**overrides: object) -> str:
    return engine_of(load(overrides={"engine": "redis", **overrides})).description


def test_the_default_is_an_engine_of_our_own():
    engine = engine_of(load())
    assert isinstance(engine, EmbeddedEngine)
    assert engine.data_dir == Path("data").resolve()


def test_the_settings_say_which_redis():
    assert described(redis_host="one", redis_port=7) == "redis, one:7"
    assert described(redis_host="one", redis_database=3) == "redis, one:6379, database 3"
    assert described(redis_cluster=True, redis_tls=True) == "redis, Cluster at localhost:6379, TLS"
    assert (
        described(redis_sentinels="one:1, [::1]:2", redis_sentinel_master="bookings")
        == "redis, master bookings of the sentinels one:1, [::1]:2"
    )


def test_what_the_servers_are_told_and_shown(tmp_path: Path):
    pem = tmp_path / "some.pem"
    pem.write_text("PEM")
    names = ("redis_tls_ca", "redis_tls_cert", "redis_tls_key")
    settings = {"redis_tls": True, "redis_username": "ann", "redis_password": "pw"}
    given = load(overrides={**settings, **dict.fromkeys(names, pem)})
    assert access_of(given) == Access("ann", "pw", Tls(pem, pem, pem))
    assert access_of(load()) == Access()


def test_what_the_engine_is_relied_on_for():
    settings = {"redis_wait_replicas": 2, "redis_wait_aof": True}
    assert needs_of(load(overrides={**settings, "engine": "redis"})) == Needs(2, aof=True)
    assert needs_of(load(overrides=settings)) == Needs(), "ours has no replicas"
