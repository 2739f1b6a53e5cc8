"""What the reference queue keeps and gives: places, questions, leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from booking_worker.domain.model import Status, Task

TASK_OF = {
    Status.PROCESSING: Task.RESERVE,
    Status.CONFIRMING: Task.CONFIRM,
    Status.RELEASING: Task.RELEASE,
}
BUSY_AT = {task: status for status, task in TASK_OF.items()}
ORDER = (Task.CONFIRM, Task.RELEASE, Task.RESERVE)
HOLDING = (Status.AWAITING_PAYMENT, Status.CONFIRMING, Status.RELEASING)


@dataclass
class Item:
    """One place, and what became of it."""

    item_id: str
    user_id: str
    seats: int
    seq: int
    waits_since: int
    key: str
    digest: str
    deadline: int | None
    """Of the present status, lease or backoff; None while a task is ready, and at the end."""
    status: Status = Status.WAITING
    token: int | None = None
    first_token: int = 0
    """The first lease since it was admitted last."""
    attempts: int = 0
    crashes: int = 0
    asked: bool = False
    cancel: bool = False
    target: Status = Status.EXPIRED
    pay_by: int = 0
    grace_used: bool = False
    written_off: bool = False
    failed_at: Task | None = None
    discarded: bool = False

    @property
    def ready(self) -> bool:
        """Whether its task can be claimed."""
        return self.status in TASK_OF and self.deadline is None

    @property
    def suspect(self) -> bool:
        """Whether two workers were lost over its task."""
        return self.crashes >= 2


class Question(NamedTuple):
    """What was known when the Ticket Service was asked."""

    settled: int
    moves: int
    refreshes: int


class Leased(NamedTuple):
    """One task handed to a worker."""

    task: Task
    item_id: str
    token: int
    until: int


class Claimed(NamedTuple):
    """What a claim gives."""

    leases: list[Leased]
    blocked: bool
    needs_refresh: bool
    suspects: bool
