"""Waiting for facts, never for time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def wait_until(
    predicate: Callable[[], Any | Awaitable[Any]], timeout: float = 10.0, every: float = 0.01
) -> Any:
    """The first true value that the predicate gives; fails with the last one seen."""
    deadline = time.monotonic() + timeout
    while True:
        seen = predicate()
        if inspect.isawaitable(seen):
            seen = await seen
        if seen:
            return seen
        if time.monotonic() > deadline:
            msg = f"not within {timeout} s; last seen: {seen!r}"
            raise AssertionError(msg)
        await asyncio.sleep(every)
