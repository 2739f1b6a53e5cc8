"""What must hold of the keys of every event after every test, whatever happened in it.

It reads the engine's keys itself and recomputes everything from the records; it believes no
counter, and asks the queue only for its sweep.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from booking_worker.domain.model import FINAL, TRANSITIONS, Change, Status
from booking_worker.queue import keys, records
from booking_worker.queue.booking_queue import BookingQueue
from tests.support.clock import CLOCK_KEY

PROCESSING = frozenset({Status.PROCESSING})
HOLDING = frozenset({Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.RELEASING})
ADMITTED = PROCESSING | HOLDING
RANK = {Status.CONFIRMING: 0, Status.RELEASING: 2**50, Status.PROCESSING: 2**51}
SUSPECT = 2**52
COUNTED = {status: status.value for status in FINAL} | {Status.SOLD_OUT: "sold_out_items"}


@dataclass(frozen=True)
class Item:
    """One record, as it is stored."""

    item_id: str
    status: Status
    user_id: str
    seats: int
    seq: int
    more: dict[str, Any]


@dataclass
class Keys:
    """All that the engine keeps of one event."""

    event_id: str
    state: dict[str, str] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    results: dict[str, Item] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    expiries: dict[str, int] = field(default_factory=dict)
    positions: dict[str, float] = field(default_factory=dict)
    timeouts: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, float] = field(default_factory=dict)
    admitted: dict[str, float] = field(default_factory=dict)
    dead: dict[str, float] = field(default_factory=dict)
    users: dict[str, list[str]] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    told_and_cut: bool = False
    """Whether the oldest changes are gone."""

    def count(self, name: str) -> int:
        """A counter of the books."""
        return int(self.state.get(name, 0))

    def of(self, statuses: frozenset[Status]) -> list[Item]:
        """The live items in these statuses."""
        return [item for item in self.items.values() if item.status in statuses]


def _item(item_id: str, record: bytes) -> Item:
    status, user_id, seats, seq, _, more, _ = records._unpack_record(record)
    return Item(item_id, status, user_id, seats, seq, dict(more))


async def read(client: Redis, event_id: str, *, ends: bool = True) -> Keys:
    """The keys of one event; without ``ends`` not those of what has ended, nor the feed."""
    named = keys.of_event(event_id)
    found = Keys(event_id)
    pipeline = client.pipeline(transaction=False)
    for name in ("state", "items", "users"):
        pipeline.hgetall(named[name])
    sets = ("positions", "timeouts", "tasks", "admitted", "dead", "gaps")
    for name in sets:
        pipeline.zrange(named[name], 0, -1, withscores=True)
    pipeline.lrange(named["queue"], 0, -1)
    pipeline.xrange(named["changes"], count=None if ends else 1)
    state, items, users, *more = await pipeline.execute()
    found.state = {field.decode(): value.decode() for field, value in state.items()}
    found.items = {id_.decode(): _item(id_.decode(), record) for id_, record in items.items()}
    found.users = {user.decode(): places.decode().split() for user, places in users.items()}
    for name, entries in zip(sets, more, strict=False):
        setattr(found, name, {id_.decode(): score for id_, score in entries})
    found.queue = [id_.decode() for id_ in more[len(sets)]]
    for entry_id, fields in more[len(sets) + 1]:
        found.changes += records.changes(event_id, entry_id.decode(), fields)
    with suppress(ResponseError):  # nothing has ever happened
        info = await client.xinfo_stream(named["changes"])
        found.told_and_cut = (
            "cursor" in found.state and info.get("entries-added", 0) > info["length"]
        )
    if ends:
        await _read_prefixed(client, found, named)
    return found


async def _read_prefixed(client: Redis, found: Keys, named: dict[str, str]) -> None:
    kept: dict[str, dict[str, Any]] = {
        named["results"]: found.results,
        named["requests"]: found.requests,
    }
    names = [
        key.decode()
        async for key in client.scan_iter(count=10_000)
        if key.decode().startswith(tuple(kept))
    ]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.get(name).pttl(name)
    answers = await pipeline.execute()
    for name, value, left in zip(names, answers[::2], answers[1::2], strict=True):
        prefix = next(prefix for prefix in kept if name.startswith(prefix))
        id_ = name.removeprefix(prefix)
        if value is not None:
            kept[prefix][id_] = _item(id_, value) if prefix == named["results"] else value.decode()
            found.expiries[id_] = left


def balance(found: Keys) -> list[str]:
    """Promise 6, from the counters and from the records."""
    parts = ("capacity", "processing_seats", "held_seats", "confirmed_seats")
    problems = []
    if sum(map(found.count, parts)) != found.count("total_seats"):
        problems.append(f"seats don't add up: {found.state}")
    if found.count("capacity") < 0 and found.count("unlimited") != 1:
        problems.append(f"capacity below zero: {found.state}")
    recomputed = {
        "processing": len(found.of(PROCESSING)),
        "processing_seats": sum(item.seats for item in found.of(PROCESSING)),
        "held": len(found.of(HOLDING)),
        "held_seats": sum(item.seats for item in found.of(HOLDING)),
        "releasing_seats": sum(item.seats for item in found.of(frozenset({Status.RELEASING}))),
    }
    problems += [
        f"{name} is {found.count(name)}, by the records {value}"
        for name, value in recomputed.items()
        if found.count(name) != value
    ]
    return problems


def _nobody_lost(found: Keys) -> list[str]:
    """Promise 2: who joined is live, or has been brought to one end, and counted there."""
    live = [item for item in found.items.values() if item.status is not Status.FAILED]
    ends = Counter(item.status for item in found.results.values())
    ends[Status.FAILED] += len(found.of(frozenset({Status.FAILED})))
    problems = [
        f"{ends[status]} are {status}, {found.count(name)} are counted"
        for status, name in COUNTED.items()
        if ends[status] > found.count(name)
    ]
    ended = sum(found.count(name) for name in COUNTED.values())
    if found.count("seq") != len(live) + ended:
        problems.append(f"{found.count('seq')} joined, {len(live)} live, {ended} ended")
    confirmed = [item for item in found.results.values() if item.status is Status.COMPLETED]
    if len(confirmed) == found.count("completed"):
        seats = sum(item.seats for item in confirmed)
        if seats != found.count("confirmed_seats"):
            problems.append(f"{seats} seats of completed items, {found.state}")
    return problems


def _indexes_agree(found: Keys) -> list[str]:
    items = found.items
    wanted: dict[str, dict[str, float]] = {
        "positions": {id_: it.seq for id_, it in items.items() if it.status is Status.WAITING},
        "admitted": {id_: it.seq for id_, it in items.items() if it.status in ADMITTED},
    }
    problems = [
        f"{name} differs: {set(getattr(found, name).items()) ^ set(index.items())}"
        for name, index in wanted.items()
        if getattr(found, name) != index
    ]
    if set(found.dead) != {item.item_id for item in found.of(frozenset({Status.FAILED}))}:
        problems.append(f"dead letters differ: {found.dead}")
    for id_, item in items.items():
        places = (id_ in found.timeouts) + (id_ in found.tasks)
        if places != (item.status is not Status.FAILED):
            problems.append(f"{id_} ({item.status}) is in {places} of timeouts and tasks")
        rank = RANK.get(item.status, -1) + item.seq
        if item.more.get("crashes", 0) >= 2:
            rank += SUSPECT
        if id_ in found.tasks and found.tasks[id_] != rank:
            problems.append(f"{id_} ({item.status}) has the rank {found.tasks[id_]}")
    strays = (set(found.timeouts) | set(found.tasks)) - set(items)
    if strays:
        problems.append(f"deadlines or tasks of nobody: {strays}")
    if missing := set(found.positions) - set(found.queue):
        problems.append(f"waiting, but not in the list of arrivals: {missing}")
    return problems


def _line_adds_up(found: Keys) -> list[str]:
    """Each number beyond the front is in the line or in the gaps; up to it, in no gap."""
    if "front" not in found.state:
        return [f"gaps without a front: {found.gaps}"] if found.gaps else []
    if found.count("front") > found.count("seq"):
        return [f"the front is beyond the last number: {found.state}"]
    beyond = set(range(found.count("front") + 1, found.count("seq") + 1))
    gone = {str(seq): float(seq) for seq in beyond - set(found.positions.values())}
    return [] if found.gaps == gone else [f"the gaps are {found.gaps}, by the line {gone}"]


def _users_agree(found: Keys) -> list[str]:
    live: dict[str, set[str]] = {}
    for item in found.items.values():
        if item.status is not Status.FAILED:
            live.setdefault(item.user_id, set()).add(item.item_id)
    entered = {user: set(places) for user, places in found.users.items()}
    problems = [] if live == entered else [f"places of users: {entered}, items: {live}"]
    problems += [
        f"{user} has a place twice: {places}"
        for user, places in found.users.items()
        if len(places) != len(set(places))
    ]
    return problems


def _finals_expire(found: Keys) -> list[str]:
    problems = [
        f"{id_} ({item.status}) is final and lives"
        for id_, item in found.items.items()
        if item.status.is_final and item.status is not Status.FAILED
    ]
    for id_, item in found.results.items():
        if not item.status.is_final or id_ in found.items:
            problems.append(f"{id_} ({item.status}) among the results")
        if found.expiries[id_] < 0:
            problems.append(f"the result {id_} has no expiry")
    for request, id_ in found.requests.items():
        if (id_ in found.items) != (found.expiries[request] < 0):
            problems.append(f"the idempotency key {request!r} of {id_}: {found.expiries[request]}")
    return problems


def _story_holds(found: Keys) -> list[str]:
    """The feed tells a change from where the last one left, by the drawn state machine."""
    if len(found.changes) >= 100_000:
        return []
    problems = []
    last: dict[str, str] = {}
    for change in found.changes:
        if not change.item_id:
            continue
        # What was told more than ten seconds ago is cut off: the service may have done so.
        is_first = found.told_and_cut and change.item_id not in last
        if last.get(change.item_id, "") != change.before and not is_first:
            problems.append(f"{change} after {last.get(change.item_id)}")
        last[change.item_id] = change.after
        drawn = not change.before or change.after in TRANSITIONS[Status(change.before)]
        if not drawn:
            problems.append(f"not in the state machine: {change}")
    now = {id_: item.status.value for id_, item in (found.items | found.results).items()}
    problems += [
        f"{id_} is {status}, last told as {last.get(id_)}"
        for id_, status in now.items()
        if last.get(id_) != status and not (found.told_and_cut and id_ not in last)
    ]
    return problems


async def problems_of(client: Redis, event_id: str) -> list[str]:
    """What is wrong with the keys of one event; nothing, after a test that passed."""
    found = await read(client, event_id)
    checks = (
        balance, _nobody_lost, _indexes_agree, _line_adds_up, _users_agree, _finals_expire,
        _story_holds,
    )  # fmt: skip
    return [problem for check in checks for problem in check(found)]


async def audit(client: Redis, queue: BookingQueue) -> None:
    """Fail when the books of any event don't balance or any two of its indexes disagree."""
    names = {key.decode() async for key in client.scan_iter(count=1000)}
    names -= {keys.EVENTS, keys.WORKERS, keys.LAYOUT, keys.SWEEP_LOCK, CLOCK_KEY}
    names -= {name for name in names if name.startswith(CLOCK_KEY)}
    events = {name[name.index("{") + 1 : name.rindex("}")] for name in names}
    for event_id in events | set(await queue.events()):
        problems = await problems_of(client, event_id)
        assert not problems, problems
        assert await queue.sweep(event_id) == []
        names -= {name for name in names if _belongs(name, keys.of_event(event_id))}
    assert names == set(), "keys that keys.py does not name"


def _belongs(name: str, named: dict[str, str]) -> bool:
    prefixes = (named["results"], named["requests"])
    return name in named.values() or name.startswith(prefixes)
