"""Promise 5: an answer under an old lease changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Lease, Task
from tests.support import queue_audit
from tests.support.stage import EVENT, Stage


async def refused_under_an_old_lease(
    stage: Stage, task: Task, answer: Callable[[Lease], Awaitable[Any]]
) -> None:
    """The lease ends, another worker gets the task: the first one's answer is refused."""
    old = await stage.lease_of(task)
    await stage.clock.advance(stage.limits.lease_ms)
    await stage.queue.expire(EVENT)
    await _refused(stage, old, answer)
    new = await stage.claim_one(task)
    assert new.token > old.token
    await _refused(stage, old, answer)
    await _refused(stage, replace(new, token=new.token + 1), answer)
    await _refused(stage, replace(new, item_id="AAAAAAAAAAAA.concert"), answer)


async def refused_for_another_task(
    stage: Stage, task: Task, answer: Callable[[Lease], Awaitable[Any]]
) -> None:
    """An answer that does not belong to the task of the lease is refused as well."""
    await _refused(stage, await stage.lease_of(task), answer)


async def _refused(stage: Stage, lease: Lease, answer: Callable[[Lease], Awaitable[Any]]) -> None:
    before = await queue_audit.read(stage.client, EVENT)
    with pytest.raises(Fenced) as caught:
        await answer(lease)
    assert (caught.value.item_id, caught.value.token) == (lease.item_id, lease.token)
    assert await queue_audit.read(stage.client, EVENT) == before
