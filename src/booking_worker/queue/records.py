"""What the scripts answer, as the words of the domain. The Lua files say the shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgpack

from booking_worker.domain import details
from booking_worker.domain.estimate import per_second
from booking_worker.domain.model import (
    Change,
    EventStatus,
    ItemRecord,
    Lease,
    Place,
    Rate,
    Status,
    Task,
)

_TASK_OF = {
    Status.PROCESSING: Task.RESERVE,
    Status.CONFIRMING: Task.CONFIRM,
    Status.RELEASING: Task.RELEASE,
}


def _unpack_record(record: bytes) -> tuple[Any, ...]:
    """status, user_id, seats, seq, joined_at_ms, more, details: see includes/record.lua."""
    # Lua packs an empty map as an empty array, and bytes that are not UTF-8 never occur in ids.
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape")
    unpacker.feed(record)
    status, user_id, seats, seq, joined_at, more, packed = unpacker
    return Status(status), user_id, int(seats), int(seq), int(joined_at), more or {}, packed


def rate(weight: bytes | None, at_ms: bytes | None, since_ms: bytes | None) -> Rate:
    """The admission rate from the fields of includes/rate.lua; all None: nothing was admitted."""
    if weight is None or at_ms is None or since_ms is None:
        return Rate(0.0, 0, 0)
    return Rate(float(weight), int(at_ms), int(since_ms))


def lease(event_id: str, engine: str, answer: Sequence[Any]) -> Lease:
    """One lease from the four values that claim.lua gives, and the engine that gave it."""
    item_id, token, until_ms, record = answer
    status, user_id, seats, seq, _, more, packed = _unpack_record(record)
    return Lease(
        task=_TASK_OF[status],
        item_id=item_id.decode(),
        event_id=event_id,
        user_id=user_id,
        seats=seats,
        seq=seq,
        token=token,
        until_ms=until_ms,
        details=_encoded(packed),
        attempts=more.get("attempts", 0),
        crashes=more.get("crashes", 0),
        cancel_requested="cancel" in more,
        booking_id=more.get("booking_id", ""),
        booking_reference=more.get("booking_reference", ""),
        payment_reference=more.get("payment_reference", ""),
        reservation_id=more.get("reservation_id", ""),
        grace_used="grace_used" in more,
        reason=more.get("reason", ""),
        worker_id=more.get("worker", ""),
        engine=engine,
    )


def _encoded(packed: str) -> bytes:
    return packed.encode("utf-8", "surrogateescape")


def places(item_ids: Sequence[str], answer: Sequence[Any]) -> list[Place | None]:
    """The places of these items from what positions.lua gives; None where there is no item."""
    now_ms, length, weight, at_ms, since_ms, *found = answer
    speed = per_second(rate(weight, at_ms, since_ms), now_ms)
    waiting = Status.WAITING
    return [
        Place(item_id, who.decode(), waiting, position, length, speed, "", "", "", 0, 0)
        if position
        else _place(item_id, who, length, speed, now_ms)
        for item_id, who, position in zip(item_ids, found[::2], found[1::2], strict=True)
    ]


def _place(
    item_id: str, record: bytes | None, queue_length: int, speed: float, now_ms: int
) -> Place | None:
    if not record:
        return None
    status, user_id, _, _, _, more, _ = _unpack_record(record)
    pay_by = int(more.get("pay_by", 0)) if status is Status.AWAITING_PAYMENT else 0
    return Place(
        item_id=item_id,
        user_id=user_id,
        status=status,
        position=0,
        queue_length=queue_length,
        admissions_per_second=speed,
        message=more.get("message") or ("cancel requested" if "cancel" in more else ""),
        booking_id=more.get("booking_id", ""),
        booking_reference=more.get("booking_reference", ""),
        pay_by_ms=pay_by,
        remaining_ms=max(0, pay_by - now_ms) if pay_by else 0,
    )


def item_record(
    item_id: str, event_id: str, position: int, deadline_ms: int, record: bytes
) -> ItemRecord:
    """One item with everything, from a record and where the indexes have it."""
    status, user_id, seats, seq, joined_at, more, packed = _unpack_record(record)
    task = _TASK_OF.get(status)
    return ItemRecord(
        item_id=item_id,
        event_id=event_id,
        user_id=user_id,
        status=status,
        seq=seq,
        seats=seats,
        position=position,
        joined_at_ms=joined_at,
        deadline_ms=deadline_ms,
        task=task.value if task else more.get("task", "") if status is Status.FAILED else "",
        token=more.get("token", 0),
        attempts=more.get("attempts", 0),
        crashes=more.get("crashes", 0),
        cancel_requested="cancel" in more,
        booking_id=more.get("booking_id", ""),
        booking_reference=more.get("booking_reference", ""),
        payment_reference=more.get("payment_reference", ""),
        reservation_id=more.get("reservation_id", ""),
        pay_by_ms=int(more.get("pay_by", 0)),
        message=more.get("message", ""),
        request=details.unpack(event_id, user_id, seats, _encoded(packed)),
    )


def event_status(event_id: str, answer: Sequence[Any]) -> EventStatus:
    """The books of an event from what status.lua gives."""
    now_ms, waiting, dead_letters, oldest_ms, head_seats, current, flat = answer
    state: Mapping[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))

    def count(field: bytes) -> int:
        return int(float(state.get(field, 0)))

    known = bool(current)
    unlimited = count(b"unlimited") == 1
    return EventStatus(
        event_id=event_id,
        waiting=waiting,
        processing=count(b"processing"),
        awaiting_payment=count(b"held"),
        completed=count(b"completed"),
        expired=count(b"expired"),
        cancelled=count(b"cancelled"),
        sold_out_items=count(b"sold_out_items"),
        rejected=count(b"rejected"),
        failed=count(b"failed"),
        joined=count(b"seq"),
        admitted=count(b"admitted"),
        dead_letters=dead_letters,
        capacity=None if unlimited or b"capacity" not in state else count(b"capacity"),
        capacity_known=known,
        capacity_exact=count(b"exact") == 1,
        processing_seats=count(b"processing_seats"),
        held_seats=count(b"held_seats"),
        confirmed_seats=count(b"confirmed_seats"),
        total_seats=count(b"total_seats"),
        sold_out=count(b"sold_out") == 1,
        paused=b"paused" in state or (b"epoch" in state and not known),
        paused_because=state.get(b"paused", b"").decode(),
        rate=rate(state.get(b"rate_weight"), state.get(b"rate_at"), state.get(b"rate_since")),
        now_ms=now_ms,
        oldest_ms=oldest_ms,
        head_seats=head_seats,
    )


def changes(event_id: str, entry_id: str, fields: Mapping[bytes, bytes]) -> list[Change]:
    """The changes of one entry of the feed: see includes/change.lua."""
    at_ms, actor = int(fields[b"at"]), fields[b"by"].decode()
    made: list[list[Any]] = msgpack.unpackb(
        fields[b"c"], raw=False, unicode_errors="surrogateescape"
    )
    # As _make does, without its look at the length: there is one of these for each join.
    whole = partial(tuple.__new__, Change)
    if actor == "user":
        # Joins of many users share an entry: each is its own user's doing.
        return [
            whole((f"{entry_id}-{index}", event_id, at_ms, f"user:{change[1]}", *change))
            for index, change in enumerate(made)
        ]
    return [
        whole((f"{entry_id}-{index}", event_id, at_ms, actor, *change))
        for index, change in enumerate(made)
    ]
