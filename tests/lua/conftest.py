"""Each test gets a queue whose clock it moves, and ends with the audit."""

from __future__ import annotations

from tests.support.queue_fixtures import clock, no_asyncio_task_is_left, queue, stage
from tests.support.queue_fixtures import queue_engine as engine

__all__ = ["clock", "engine", "no_asyncio_task_is_left", "queue", "stage"]
