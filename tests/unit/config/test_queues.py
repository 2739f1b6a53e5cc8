from __future__ import annotations

from redis.asyncio import Redis

from booking_worker.config import load
from booking_worker.config.queues import limits_of, queue_of


def test_limits_are_those_of_the_settings_in_milliseconds():
    limits = limits_of(load(overrides={"queue_max_size": 7, "payment_grace_seconds": 0.5}))
    assert (limits.max_size, limits.payment_grace_ms, limits.lease_ms) == (7, 500, 30_000)


def test_a_result_is_kept_for_a_moment_at_least():
    assert limits_of(load(overrides={"result_ttl_seconds": 0.0001})).result_ttl_ms == 1


async def test_the_embedded_engine_has_no_replicas_to_wait_for():
    async with Redis() as client:
        waits = {"redis_wait_replicas": 1}
        embedded = queue_of(load(overrides=waits), client)
        redis = queue_of(load(overrides={"engine": "redis", **waits}), client)
    assert embedded._told is embedded._runner
    assert redis._told is not redis._runner
