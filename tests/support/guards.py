"""The guards that the promises rest on, each with a way to switch it off.

A fault's test shows little unless the same story, told without the guard, breaks a promise: the
tests named ``..._without_...`` tell it so.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any, Final

from booking_worker.api import validation
from booking_worker.domain.model import Layout
from booking_worker.peers.booking import BookingClient
from booking_worker.peers.breaker import Breaker
from booking_worker.queue.booking_queue import BookingQueue
from booking_worker.queue.lane import Lane
from booking_worker.queue.lock import TTL_SECONDS, Redlock, Vote
from booking_worker.worker.assignment import Assignment, Outcome
from booking_worker.worker.opening import Opening
from booking_worker.worker.recall import Recall
from booking_worker.worker.reserve import Reserve
from booking_worker.worker.runner import TaskRunner
from booking_worker.worker.setbacks import Setbacks
from booking_worker.worker.timeouts import TimeoutHandler

SCRIPT_EDITS: Final[Mapping[str, tuple[str, str, str]]] = {
    # guard: (Lua file, what stands there, what is put in its place)
    "fencing": (
        "includes/fence",
        "if item and item.more.token == under then return item end",
        "if item then return item end",
    ),
    "the lease's end": (
        "expire",
        "  elseif item.more.token then\n    lease_ended(id, item)",
        "  elseif item.more.token then\n    redis.call('ZADD', timeouts, now + 3600000, id)",
    ),
    "the suspicion": (
        "includes/task",
        "if (item.more.crashes or 0) >= LOSSES then rank = rank + SUSPECT end",
        "",
    ),
    "the bound on crashes": ("expire", ">= max_crashes then", ">= 1000000 then"),
    "one place a user": (
        "includes/has_place",
        "if #live >= places_per_user then return existing(live[1]), nil end",
        "",
    ),
    "the request's digest": (
        "includes/has_place",
        "if known ~= digest then return 'IDEMPOTENCY_CONFLICT' end",
        "",
    ),
    "the longest line": ("join", "elseif waiting >= max_size then", "elseif false then"),
    "the capacity step": (
        "claim",
        "if not unlimited and item.seats > capacity then",
        "if false then",
    ),
    "the check of the status": (
        "ask_confirm",
        "if item.status == 'awaiting_payment' and now < more.pay_by then",
        "if item.status == 'awaiting_payment' or item.status == 'releasing' then",
    ),
    "the deadline": (
        "ask_confirm",
        "and now < more.pay_by then",
        "then",
    ),
    "the first payment": (
        "ask_confirm",
        "elseif item.status == 'confirming' or item.status == 'completed' then",
        (
            "elseif item.status == 'confirming' then\n"
            "  more.payment_reference = payment_reference\n"
            "  save(item_id, item)\n"
            "elseif item.status == 'completed' then"
        ),
    ),
    "a confirm's protection from expiry": (
        "expire",
        "  elseif item.more.token then\n",
        (
            "  elseif item.status == 'confirming' then\n"
            "    leave_held(item, 'capacity')\n"
            "    finish(id, item, 'expired', 'not paid in time')\n"
            "  elseif item.more.token then\n"
        ),
    ),
    "the mark of a cancel": (
        "cancel",
        "item.more.cancel = item.more.cancel or reason",
        "",
    ),
    "one release": (
        "settle_released",
        "finish(item_id, item, item.more.target, item.more.reason)",
        (
            "add('capacity', item.seats)\nadd('total_seats', item.seats)\n"
            "finish(item_id, item, item.more.target, item.more.reason)"
        ),
    ),
    "no attempt used up": (
        "hand_back",
        "local more = item.more",
        "local more = item.more\nmore.crashes = (more.crashes or 0) + 1",
    ),
    "the gap between tokens": (
        "includes/token",
        "if giver == engine() then return token end",
        "if token then return token end",
    ),
    "the engine that was asked": (
        "set_capacity",
        "if lost or asked_engine ~= engine() or settled < settled_seats or moved < moves then",
        "if false then",
    ),
    "the pause for another engine": (
        "claim",
        "or event[7] == engine()",
        "or event[7]",
    ),
    "the fence of the feed": (
        "save_cursor",
        "if tonumber(redis.call('HGET', state, 'fence') or 0) ~= token then return 0 end",
        "",
    ),
    "the engine's clock": (
        "includes/now",
        "now = now[1] * 1000",
        "now = 600000 -- as if it came from a replica\n  + now[1] * 1000",
    ),
    "the certainty": ("sell_out", "if not certain then return -1 end\n", ""),
}


def _edited(file: str, stands: str, instead: str) -> str:
    path = resources.files("booking_worker.queue").joinpath("lua", *f"{file}.lua".split("/"))
    text = path.read_text(encoding="utf-8")
    assert text.count(stands) == 1, f"{file}.lua has changed: no guard {stands!r} to switch off"
    return text.replace(stands, instead)


def scripts_without(*guards: str) -> dict[str, str]:
    """For BookingQueue's ``script_overrides``: the scripts with these guards edited out."""
    return {
        SCRIPT_EDITS[guard][0]: _edited(*SCRIPT_EDITS[guard])
        for guard in guards
        if guard in SCRIPT_EDITS
    }


Patch = Callable[[Any, str, Any], None]


def _without_idempotency_key(patch: Patch) -> None:
    create = BookingClient.create

    async def with_another_key(self: BookingClient, request: Any, key: str) -> Any:
        return await create(self, request, f"{key}/{secrets.token_hex(4)}")

    patch(BookingClient, "create", with_another_key)


def _without_breaker(patch: Patch) -> None:
    patch(Breaker, "record_failure", lambda self: None)


def _without_script_reload(patch: Patch) -> None:
    arrived = Lane._arrived

    def told(self: Lane, connection: Any, trip: Any, answers: Any) -> None:
        arrived(self, connection, trip._replace(in_full=True), answers)

    patch(Lane, "_arrived", told)


def _without_sweep(patch: Patch) -> None:
    async def sweep_once(self: TimeoutHandler) -> list[Any]:
        return []

    patch(TimeoutHandler, "sweep_once", sweep_once)


def _without_handing_back(patch: Patch) -> None:
    async def hand_back(self: TaskRunner, lease: Any, **how: bool) -> Outcome:
        return Outcome.LET_GO

    patch(TaskRunner, "_hand_back", hand_back)


def _without_own_timer(patch: Patch) -> None:
    """What a worker has begun it carries to its end, however long it was stopped meanwhile."""

    async def bounded(self: Assignment, run: Any) -> Any:
        return await run(self)

    patch(Assignment, "bounded", bounded)


def _without_weighing(patch: Patch) -> None:
    async def weigh(self: Reserve, work: Any, refusal: Any) -> Outcome:
        await work.settle(lambda: self._queue.settle_rejected(work.lease, refusal.message))
        return Outcome.REJECTED

    patch(Reserve, "_weigh", weigh)


def _without_asking_again(patch: Patch) -> None:
    """What got no answer is taken for refused, as if nothing had been done."""

    async def again(self: Setbacks, work: Any, error: Any, breaker: Any) -> Outcome:
        lease = work.lease
        if lease.task.value == "confirm":
            await work.settle(lambda: self._queue.settle_gone(lease, str(error)))
        elif lease.task.value == "reserve":
            await work.settle(lambda: self._queue.settle_rejected(lease, str(error)))
        else:
            await work.settle(lambda: self._queue.settle_released(lease))
        return Outcome.REJECTED

    patch(Setbacks, "again", again)


def _without_waiting_for_the_judge(patch: Patch) -> None:
    async def later(self: Setbacks, work: Any, error: Any, breaker: Any) -> Outcome:
        return await self.retry(work, str(error))

    patch(Setbacks, "later", later)


def _without_check_of_ids(patch: Patch) -> None:
    patch(validation, "is_plain_id", lambda text: True)


def _without_memory_of_bookings(patch: Patch) -> None:
    patch(Recall, "booked", lambda self, lease: None)


def _without_record_of_layout(patch: Patch) -> None:
    """The engine, and each event in it, is believed to be what it was, whatever it lost."""

    async def read_layout(self: BookingQueue) -> Layout:
        self.layout = self.layout or Layout(1, "any", 0, "", "", 0)
        return self.layout

    async def allows(self: Opening, event_id: str, question: Any) -> bool:
        return True

    patch(BookingQueue, "read_layout", read_layout)
    patch(Opening, "allows", allows)


def _without_lock(patch: Patch) -> None:
    """Everybody is the holder of every lock, by the word of each."""

    async def hold(self: Redlock, event_ids: Any, ttl_seconds: float = TTL_SECONDS) -> list[Vote]:
        return [Vote(time.monotonic() + ttl_seconds, None, is_split=False) for _ in event_ids]

    patch(Redlock, "hold", hold)


POISONED: Final = "poison"
"""The user whose reserves do harm where a poison is put in."""


def _poison(harm: Callable[[], Awaitable[None]]) -> Callable[[Patch], None]:
    def put_in(patch: Patch) -> None:
        run = Reserve.run

        async def poisoned(self: Reserve, work: Any) -> Outcome:
            if work.lease.user_id == POISONED:
                await harm()
            return await run(self, work)

        patch(Reserve, "run", poisoned)

    return put_in


async def _crash() -> None:
    raise RuntimeError("poisoned")


async def _hang() -> None:
    await asyncio.Event().wait()


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _clock_off_by(seconds: int) -> Callable[[Patch], None]:
    """Until SIGUSR1: then it is set right, which is a step."""

    def put_in(patch: Patch) -> None:
        off = [seconds]
        now, now_ns = time.time, time.time_ns
        signal.signal(signal.SIGUSR1, lambda *_: off.clear())
        patch(time, "time", lambda: now() + sum(off))
        patch(time, "time_ns", lambda: now_ns() + sum(off) * 1_000_000_000)

    return put_in


_PATCHES: Final[Mapping[str, Callable[[Patch], None]]] = {
    "the idempotency key": _without_idempotency_key,
    "the breaker": _without_breaker,
    "the reload of scripts": _without_script_reload,
    "the sweep": _without_sweep,
    "handing back": _without_handing_back,
    "the worker's own timer": _without_own_timer,
    "weighing refusals": _without_weighing,
    "asking again": _without_asking_again,
    "waiting for the judge": _without_waiting_for_the_judge,
    "the check of ids": _without_check_of_ids,
    "the memory of bookings": _without_memory_of_bookings,
    "the record of the layout": _without_record_of_layout,
    "the lock": _without_lock,
    "poison that crashes": _poison(_crash),
    "poison that hangs": _poison(_hang),
    "poison that kills": _poison(_kill),
    "a clock that is 10 minutes ahead": _clock_off_by(600),
    "a clock that is 10 minutes behind": _clock_off_by(-600),
}


def switch_off(guards: tuple[str, ...], patch: Patch) -> None:
    """Switch off what is no script's, or put in a poison.

    ``patch`` is ``setattr``, or a monkeypatch's.
    """
    for guard in guards:
        if guard not in SCRIPT_EDITS:
            _PATCHES[guard](patch)
