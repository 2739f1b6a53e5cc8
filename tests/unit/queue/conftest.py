"""Each test gets a queue whose clock it moves, and ends with the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from booking_worker.engine.server_binary import from_path, from_wheel
from tests.support.queue_fixtures import clock, no_asyncio_task_is_left, queue, stage
from tests.support.servers import Cluster, Server, cluster, standalone

__all__ = ["clock", "no_asyncio_task_is_left", "queue", "shared", "stage"]

_KINDS = {"one server": standalone, "Cluster": cluster}
_BINARIES = [found for found in (from_wheel(), from_path("redis-server")) if found]


@pytest.fixture(
    scope="session",
    params=[(kind, binary) for kind in _KINDS for binary in _BINARIES],
    ids=lambda param: f"{param[0]}, {param[1].origin}",
)
def shared(request: pytest.FixtureRequest) -> Iterator[Server | Cluster]:
    """Servers for tests that leave them as they were, but for data and scripts."""
    kind, binary = request.param
    with asyncio.Runner() as runner:
        made = _KINDS[kind](binary)
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))
