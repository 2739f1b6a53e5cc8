"""Connections to the services that we call."""

from __future__ import annotations

from typing import Final

import grpc.aio

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # A connection that died without a word is noticed while calls are under way, not before:
    # pings on an idle connection make many servers close it ("too many pings").
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Back soon after a peer's restart; the first of these is also how long a connect may take.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A peer that comes back under another address is found as soon.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # Attempts are counted by the queue, so none are made behind its back.
    ("grpc.enable_retries", 0),
    # Each channel has its own connection: what one has learnt of a dead peer delays no other.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(endpoint: str) -> grpc.aio.Channel:
    """A channel to ``host:port`` (or ``unix:path``), which connects at the first call.

    Calls on it fail at once while the peer can't be reached, and it tries again by itself,
    after 0.1 s at first and every 2 s at most. Close it with ``await channel.close()``.
    """
    return grpc.aio.insecure_channel(endpoint, options=OPTIONS)
