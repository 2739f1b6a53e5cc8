"""The audit log of a sale, read back: what happened to each item, in order, once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from booking_worker.domain.model import FINAL, Status

_LINE_START: Final = '{"at":'
_NUMBER: Final = re.compile("[0-9]+")


class AuditLine(NamedTuple):
    """One change of one item's status, as the audit log tells it."""

    at_ms: int
    item_id: str
    event_id: str
    user_id: str
    before: str
    """Empty for a join."""
    after: str
    seats: int
    seq: int
    booking_id: str
    change_id: str


def read_lines(lines: Iterable[str]) -> list[AuditLine]:
    """The changes in the order in which they happened to each event, each of them once.

    The log has a change at least once, and not always in its turn: of several replicas one at a
    time tells of an event, but one that was paused may end what it had begun. A line that a killed
    service began and the next one went on with is read from where the next one went on. What
    changed no item (a refusal, an event that is sold out) is left out.

    Raises:
        ValueError: a whole line is none of an audit log.
    """
    seen: set[tuple[str, str]] = set()
    changes = []
    for line in lines:
        facts = _facts(line)
        if not facts or not facts.get("item_id") or "change_id" not in facts:
            continue
        mark = (facts["event_id"], facts["change_id"])
        if mark not in seen:
            seen.add(mark)
            changes.append(_line(facts))
    return sorted(changes, key=_turn)


def _turn(line: AuditLine) -> tuple[int, ...]:
    """When it happened to its event: a change id is an entry of the feed, and an index in it."""
    return tuple(int(number) for number in _NUMBER.findall(line.change_id))


def _facts(line: str) -> dict[str, Any] | None:
    """What a line says; None for one that was cut off, and comes again whole."""
    if not line.strip():
        return None
    last = line.rfind(_LINE_START)
    if last < 0:
        # A line that was cut off within its first letters, or nothing of ours.
        if line.strip() and not _LINE_START.startswith(line.strip()):
            raise ValueError(f"not a line of an audit log: {line[:200]!r}")
        return None
    try:
        facts: dict[str, Any] = orjson.loads(line[last:])
    except orjson.JSONDecodeError:
        return None
    return facts


def _line(facts: dict[str, Any]) -> AuditLine:
    try:
        return AuditLine(
            at_ms=facts["at_ms"],
            item_id=facts["item_id"],
            event_id=facts["event_id"],
            user_id=facts["user_id"],
            before=facts["from"],
            after=facts["to"],
            seats=facts["seats"],
            seq=facts["seq"],
            booking_id=facts["booking_id"],
            change_id=facts["change_id"],
        )
    except KeyError as error:
        raise ValueError(f"a line of the audit log lacks {error}: {facts}") from None


def by_item(lines: Iterable[AuditLine]) -> dict[str, list[AuditLine]]:
    """The history of each item, in the order in which they joined."""
    histories: dict[str, list[AuditLine]] = {}
    for line in lines:
        histories.setdefault(line.item_id, []).append(line)
    return histories


def is_final(history: Sequence[AuditLine]) -> bool:
    """Whether an item has ended."""
    return history[-1].after in FINAL


def is_admission(line: AuditLine) -> bool:
    """Whether an item was admitted, for the first time or again."""
    return line.before == Status.WAITING and line.after == Status.PROCESSING


def seconds_to_admission(histories: Iterable[Sequence[AuditLine]]) -> list[float]:
    """From the join to the first admission of each item that was admitted, by one clock; sorted."""
    return sorted(
        (admitted[0].at_ms - history[0].at_ms) / 1000
        for history in histories
        if (admitted := [line for line in history if is_admission(line)])
    )
