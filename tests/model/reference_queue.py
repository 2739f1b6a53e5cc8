"""The queue in plain Python, from the design's words: what BookingQueue is compared with.

It keeps one event and nothing twice: positions, books and counters are computed from the items
whenever somebody asks, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

from booking_worker.domain.errors import (
    BookingWorkerError,
    Fenced,
    IdempotencyConflict,
    NotYourItem,
    QueueFull,
    UserHasPlace,
    WrongStatus,
)
from booking_worker.domain.model import Join, Joined, Status, Task
from booking_worker.queue.booking_queue import QueueLimits
from tests.model.reference_item import (
    BUSY_AT,
    HOLDING,
    ORDER,
    TASK_OF,
    Claimed,
    Item,
    Leased,
    Question,
)


class ReferenceQueue:
    """One event's line, its work and its books."""

    def __init__(self, limits: QueueLimits, now: int) -> None:
        self.limits = limits
        self.now = now
        self.items: dict[str, Item] = {}
        self.places: dict[str, list[str]] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.tokens = self.admitted = self.settled_at = 0
        self.capacity = self.settled = self.moves = self.refreshes = 0
        self.answered = self.known = self.exact = self.unlimited = self.sold_out = False

    # --- what can be asked of it

    def waiting(self) -> list[Item]:
        """Who waits, in order."""
        line = [item for item in self.items.values() if item.status is Status.WAITING]
        return sorted(line, key=lambda item: item.seq)

    def position(self, item: Item) -> int:
        """1 is next; 0 once admitted."""
        return self.waiting().index(item) + 1 if item.status is Status.WAITING else 0

    @property
    def certain(self) -> bool:
        """Whether who hears of the capacity can rely on it."""
        return self.exact and self.now >= self.settled_at

    def among(self, *statuses: Status) -> list[Item]:
        """Items in any of these statuses."""
        return [item for item in self.items.values() if item.status in statuses]

    def seats(self, *statuses: Status) -> int:
        """Seats of the items in any of these statuses."""
        return sum(item.seats for item in self.among(*statuses))

    # --- a place in line

    def join(self, joins: Sequence[Join]) -> list[Joined | BookingWorkerError]:
        """One outcome for each."""
        return [self._join(join) for join in joins]

    def _join(self, join: Join) -> Joined | BookingWorkerError:
        bound = self.keys.get((join.user_id, join.idempotency_key)) if join.idempotency_key else ""
        if bound:
            if self.items[bound].digest != join.digest:
                return IdempotencyConflict()
            return self._again(bound)
        places = self.places.setdefault(join.user_id, [])
        if len(places) >= self.limits.places_per_user:
            return self._again(places[0])
        if len(self.waiting()) >= self.limits.max_size:
            return QueueFull("", self.limits.max_size)
        item = Item(
            join.item_id, join.user_id, join.seats, len(self.items) + 1, self.now,
            join.idempotency_key, join.digest, self.now + self.limits.queue_timeout_ms,
        )  # fmt: skip
        self.items[item.item_id] = item
        places.append(item.item_id)
        if item.key:
            self.keys[item.user_id, item.key] = item.item_id
        return Joined(item.item_id, self.position(item), already_queued=False, status=item.status)

    def _again(self, item_id: str) -> Joined:
        item = self.items[item_id]
        return Joined(item_id, self.position(item), already_queued=True, status=item.status)

    def cancel(self, item_id: str, user_id: str) -> Status:
        """Give a place back."""
        item = self._of(item_id, user_id)
        match item.status:
            case Status.WAITING:
                self._end(item, Status.CANCELLED)
            case Status.PROCESSING:
                item.cancel = True
            case Status.AWAITING_PAYMENT:
                self._release(item, Status.CANCELLED)
            case Status.RELEASING if item.target is not Status.CANCELLED:
                raise WrongStatus(item_id, "expired", "cancel")
            case Status.RELEASING | Status.CANCELLED:
                pass
            case status:
                raise WrongStatus(item_id, status, "cancel")
        return item.status

    def ask_confirm(self, item_id: str, user_id: str) -> Status:
        """The user has paid."""
        item = self._of(item_id, user_id)
        match item.status:
            case Status.AWAITING_PAYMENT if self.now < item.pay_by:
                item.attempts = item.crashes = 0
                item.status, item.deadline = Status.CONFIRMING, None
            case Status.AWAITING_PAYMENT:
                raise WrongStatus(item_id, "expired", "pay")
            case Status.RELEASING:
                raise WrongStatus(item_id, item.target, "pay")
            case Status.CONFIRMING | Status.COMPLETED:
                pass
            case status:
                raise WrongStatus(item_id, status, "pay")
        return item.status

    def _of(self, item_id: str, user_id: str) -> Item:
        item = self.items[item_id]
        if user_id not in {"", item.user_id}:
            raise NotYourItem(item_id)
        return item

    # --- work

    def claim(self, limit: int, tasks: frozenset[Task], *, suspects: bool = False) -> Claimed:
        """Confirm before release before reserve, then who stands at the head of the line."""
        leases: list[Leased] = []
        ready = [it for it in self.items.values() if it.ready and TASK_OF[it.status] in tasks]
        for task in ORDER:
            of_task = [it for it in ready if TASK_OF[it.status] is task and it.suspect is suspects]
            first = sorted(of_task, key=lambda it: it.seq)[: limit - len(leases)]
            leases += [self._lease(item) for item in first]
        left = any(it.suspect and it.ready for it in ready)
        stuck = suspects  # nobody is admitted then
        while Task.RESERVE in tasks and len(leases) < limit and self.waiting() and not stuck:
            head = self.waiting()[0]
            in_flight = self.seats(Status.PROCESSING, *HOLDING)
            if self.known and (self.unlimited or head.seats <= self.capacity):
                self.capacity -= head.seats
                self.moves += 1
                self.admitted += 1
                head.status = Status.PROCESSING
                leases.append(self._lease(head))
                head.first_token = self.tokens
            elif self.known and self.certain and head.seats > self.capacity + in_flight > 0:
                self._end(head, Status.SOLD_OUT)
            else:
                stuck = True
        # With all slots taken, that admission is paused is said nevertheless.
        stuck = (stuck and not suspects) or (
            Task.RESERVE in tasks and not self.known and bool(self.waiting())
        )
        gone = self.capacity <= 0 and not self.among(Status.PROCESSING, *HOLDING)
        refresh = not self.known or (not self.unlimited and (not self.certain or gone))
        return Claimed(leases, stuck, stuck and refresh, left)

    def _lease(self, item: Item) -> Leased:
        self.tokens += 1
        item.token, item.deadline = self.tokens, self.now + self.limits.lease_ms
        return Leased(TASK_OF[item.status], item.item_id, self.tokens, item.deadline)

    def leased(self, item_id: str, token: int, *tasks: Task) -> Item:
        """The item, if this lease holds."""
        item = self.items[item_id]
        if item.token != token or TASK_OF[item.status] not in (tasks or ORDER):
            raise Fenced(item_id, token)
        return item

    def extend(self, item_id: str, token: int) -> int:
        """A lease anew."""
        item = self.leased(item_id, token)
        item.deadline = self.now + self.limits.lease_ms
        return item.deadline

    def hand_back(self, item_id: str, token: int, *, asked: bool) -> Status:
        """Unfinished."""
        item = self.leased(item_id, token)
        item.token = item.deadline = None
        touched = asked or item.asked or item.attempts or item.crashes
        if item.status is not Status.PROCESSING or touched:
            item.asked = True
            return item.status
        self._put_back(item)
        return self._end(item, Status.CANCELLED) if item.cancel else self._to_line(item)

    def retry(self, item_id: str, token: int, backoff: int, *, uses_up: bool = True) -> Status:
        """It failed for now."""
        item = self.leased(item_id, token)
        item.attempts += uses_up
        item.asked = item.asked or not uses_up
        if uses_up and item.attempts > self.limits.max_retries:
            return self._die(item)
        item.token, item.deadline = None, self.now + backoff
        return item.status

    def held(self, item_id: str, token: int, hold_ms: int) -> Status:
        """A reserve came back with a booking."""
        item = self.leased(item_id, token, Task.RESERVE)
        item.attempts = item.crashes = 0
        self.settled += item.seats
        self.moves += 1
        if item.cancel:
            return self._release(item, Status.CANCELLED)
        return self._hold(item, self.now + hold_ms)

    def refused(self, item_id: str, token: int, *, short: bool) -> Status:
        """A reserve came back with a no: for good, or as tickets ran out."""
        item = self.leased(item_id, token, Task.RESERVE)
        if short:
            self.settled += item.seats
            self._write_off()
        else:
            self._put_back(item)
        if item.cancel:
            return self._end(item, Status.CANCELLED)
        if not short:
            return self._end(item, Status.REJECTED)
        item.attempts = item.crashes = 0
        return self._to_line(item)

    def paid(self, item_id: str, token: int, task: Task) -> Status:
        """Confirmed: as asked for, or found so before the release."""
        item = self.leased(item_id, token, task)
        self.moves += 1
        return self._end(item, Status.COMPLETED)

    def unconfirmed(self, item_id: str, token: int) -> Status:
        """A confirm was refused, the booking is open."""
        item = self.leased(item_id, token, Task.CONFIRM)
        item.attempts = 0
        return self._hold(item, item.pay_by)

    def gone(self, item_id: str, token: int) -> Status:
        """There is no such booking any more."""
        item = self.leased(item_id, token, Task.CONFIRM, Task.RELEASE)
        self._write_off()
        return self._end(item, item.target if item.status is Status.RELEASING else Status.EXPIRED)

    def released(self, item_id: str, token: int) -> Status:
        """The booking was cancelled."""
        item = self.leased(item_id, token, Task.RELEASE)
        if item.written_off:
            self._write_off()
        else:
            self._put_back(item)
        return self._end(item, item.target)

    def paying(self, item_id: str, token: int) -> Status:
        """A payment is in progress: a little longer, once."""
        item = self.leased(item_id, token, Task.RELEASE)
        if item.grace_used:
            raise Fenced(item_id, token)
        item.grace_used, item.cancel, item.attempts = True, False, 0
        return self._hold(item, self.now + self.limits.payment_grace_ms)

    def expire(self, limit: int) -> int:
        """Act on deadlines that have passed, the earliest first; how many."""
        due = [it for it in self.items.values() if it.deadline is not None]
        due = sorted(due, key=lambda it: (it.deadline or 0, it.item_id.encode()))
        due = [it for it in due if (it.deadline or 0) <= self.now][:limit]
        for item in due:
            if item.status is Status.WAITING:
                self._end(item, Status.EXPIRED)
            elif item.status is Status.AWAITING_PAYMENT:
                self._release(item, Status.EXPIRED)
            elif item.token is None:
                item.deadline = None
            else:
                item.crashes += 1
                item.token = item.deadline = None
                if item.crashes >= self.limits.max_crashes:
                    self._die(item)
        return len(due)

    # --- capacity

    def ask_capacity(self) -> Question:
        """Before the Ticket Service is asked."""
        return Question(self.settled, self.moves, self.refreshes)

    def set_capacity(self, question: Question, available: int | None) -> int:
        """From an answer that may be old: never more than is left for sure."""
        busy = self.seats(Status.PROCESSING, Status.RELEASING)
        left = max(0, max(0, available or 0) - (self.settled - question.settled) - busy)
        if question.refreshes != self.refreshes:
            if available is not None and left < self.capacity:
                self.capacity, self.exact = left, False
            return len(self.waiting())
        if self.answered and not self.known:
            self.settled_at = self.now + 5_000
        self.refreshes += 1
        self.answered = self.known = True
        self.unlimited = available is None
        self.capacity = left
        self.exact = self.unlimited or (question.moves == self.moves and not busy)
        if left > 0 or self.unlimited:
            self.sold_out = False
        return len(self.waiting())

    def sell_out(self, limit: int) -> int | None:
        """Tell who waits, while it is certain."""
        open_ = self.unlimited or self.capacity > 0 or self.among(Status.PROCESSING, *HOLDING)
        if open_ or not self.certain or not self.known or not self.waiting():
            return None
        self.sold_out = True
        for item in self.waiting()[:limit]:
            self._end(item, Status.SOLD_OUT)
        return len(self.waiting())

    # --- dead letters

    def requeue(self, item_id: str) -> Status:
        """Back to its old place, or to its task."""
        item = self._dead(item_id)
        places = self.places.setdefault(item.user_id, [])
        if len(places) >= self.limits.places_per_user:
            raise UserHasPlace(item_id)
        places.append(item_id)
        item.attempts = item.crashes = 0
        item.asked, item.waits_since = True, self.now
        if item.failed_at is Task.RESERVE:
            return self._to_line(item)
        assert item.failed_at is not None
        self.moves += 1
        item.status, item.deadline, item.written_off = BUSY_AT[item.failed_at], None, True
        return item.status

    def discard(self, item_id: str) -> Status:
        """Let go."""
        item = self._dead(item_id)
        item.discarded = True
        return item.status

    def _dead(self, item_id: str) -> Item:
        item = self.items[item_id]
        if item.discarded or (item.status.is_final and item.status is not Status.FAILED):
            raise WrongStatus(item_id, "final", "do this")
        if item.status is not Status.FAILED:
            raise WrongStatus(item_id, item.status, "do this")
        return item

    # --- the ways from status to status

    def _end(self, item: Item, status: Status) -> Status:
        item.status, item.token, item.deadline = status, None, None
        self.places[item.user_id].remove(item.item_id)
        return status

    def _die(self, item: Item) -> Status:
        item.failed_at = TASK_OF[item.status]
        if item.status is Status.PROCESSING:
            self.settled += item.seats
        self._write_off()
        return self._end(item, Status.FAILED)

    def _hold(self, item: Item, pay_by: int) -> Status:
        item.status, item.token = Status.AWAITING_PAYMENT, None
        item.deadline = item.pay_by = pay_by
        return item.status

    def _release(self, item: Item, target: Status) -> Status:
        item.attempts = item.crashes = 0
        item.status, item.target = Status.RELEASING, target
        item.token = item.deadline = None
        return item.status

    def _to_line(self, item: Item) -> Status:
        self.admitted -= 1
        item.status, item.token = Status.WAITING, None
        item.deadline = item.waits_since + self.limits.queue_timeout_ms
        return item.status

    def _put_back(self, item: Item) -> None:
        self.capacity += item.seats
        self.moves += 1

    def _write_off(self) -> None:
        """The seats leave the books: they are neither held nor left."""
        self.exact = False
        self.moves += 1
