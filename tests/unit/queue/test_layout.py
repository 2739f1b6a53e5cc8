"""What the scripts do is in tests/lua/test_read_layout.py, test_pause.py and test_resume.py."""

from __future__ import annotations

import pytest

from booking_worker.domain.errors import EngineUnavailable, LayoutTooNew
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.stage import Stage, nowhere


async def test_what_was_read_last_is_remembered(queue: BookingQueue):
    assert queue.layout is None
    assert await queue.read_layout() is queue.layout


async def test_a_pause_or_a_resume_of_one_event_reads_nothing(queue: BookingQueue):
    await queue.pause("concert", "flooded", "operator:kim")
    await queue.resume("concert")
    assert queue.layout is None


async def test_what_is_said_of_all_is_known_here_at_once(stage: Stage, queue: BookingQueue):
    await queue.pause("", "größer: 💃", "operator:kim")
    assert queue.layout is not None
    assert queue.layout.paused == "größer: 💃"
    await queue.resume("")
    assert queue.layout.paused == ""


async def test_a_later_layout_is_not_read(stage: Stage, queue: BookingQueue):
    await stage.client.hset(keys.LAYOUT, mapping={"version": 2, "id": "x", "created_at": 1})
    with pytest.raises(LayoutTooNew):
        await queue.read_layout()
    assert queue.layout is None


async def test_no_engine_no_record():
    with pytest.raises(EngineUnavailable):
        await nowhere().read_layout()
