"""What workers do: claim, call the services, answer, answer late, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from booking_worker.domain.errors import Fenced
from booking_worker.domain.model import Held, Lease, Task
from tests.model.promises import PromiseBroken
from tests.model.reference_item import BUSY_AT, Leased
from tests.model.sale import EVENT, Choose, Sale
from tests.model.world import ANY_TASK, OF_TASK

TASKS = (
    frozenset(Task),
    *(frozenset({task}) for task in Task),
    frozenset({Task.CONFIRM, Task.RELEASE}),
)


class Workers(Sale):
    """A worker that dies is one that never answers: its lease ends by the clock."""

    def _claim(self, limit: int, tasks: frozenset[Task], *, suspects: bool = False) -> list[Lease]:
        claimed = self.run(self.queue.claim(EVENT, "w", limit, tasks, suspects=suspects))
        expected = self.model.claim(limit, tasks, suspects=suspects)
        got = [Leased(one.task, one.item_id, one.token, one.until_ms) for one in claimed.leases]
        said = (got, claimed.blocked, claimed.needs_refresh, claimed.suspects)
        self.outcomes.append((said, tuple(expected)))
        if got != expected.leases:
            return []  # found after the step
        self.leases += claimed.leases
        return list(claimed.leases)

    def claim(self, choose: Choose) -> None:
        limit, tasks = choose(range(5), "limit"), choose(TASKS, "tasks")
        some = any(item.ready and item.suspect for item in self.model.items.values())
        self._claim(limit, tasks, suspects=some and choose((True, False), "suspects"))

    def work(self, choose: Choose) -> None:
        """A whole task in one step, as most are; the call or its answer may be lost on the way."""
        every = frozenset(Task)
        for lease in self._claim(1, every) or self._claim(1, every, suspects=True):
            if choose(range(4), "called"):
                self._call(lease)
            if choose((True, False), "heard") and lease.item_id in self.model.items:
                answers = self.world.answers(lease.task, lease.item_id)
                self._answer(lease, choose(answers, "answer"), 70_000)

    def _some_lease(self, choose: Choose) -> Lease:
        """One that holds, or any of the last."""
        items = self.model.items
        held = [one for one in self.leases if items[one.item_id].token == one.token]
        some = held if held and choose(range(4), "holds") else self.leases[-12:]
        return choose(some, "lease")

    def call(self, choose: Choose) -> None:
        """The call of a task reaches its service, perhaps after the lease has ended."""
        self._call(self._some_lease(choose))

    def _call(self, lease: Lease) -> None:
        item = self.model.items.get(lease.item_id)
        if item is None or item.status is not BUSY_AT[lease.task] or lease.token < item.first_token:
            return
        effect = self.world.call(Leased(lease.task, lease.item_id, lease.token, 0), item.seats)
        self.called.add(lease.token)
        if self.honest and lease.task is Task.RESERVE and not effect:
            raise PromiseBroken(1, f"{item} was admitted in vain")

    def settle(self, choose: Choose) -> None:
        """A worker answers, under its lease or an older one, sometimes for another task."""
        lease = self._some_lease(choose)
        answers = [*self.world.answers(lease.task, lease.item_id), "retry", *ANY_TASK]
        every = sorted({name for names in OF_TASK.values() for name in names})
        if self.model.items[lease.item_id].token != lease.token:
            answers = [*every, *ANY_TASK]
        elif choose(range(20), "another task") == 0:
            answers = [name for name in every if name not in OF_TASK[lease.task]]
        wait = choose((70_000, 500, 0), "milliseconds")
        self._answer(lease, choose(answers, "answer"), wait)

    def _answer(self, lease: Lease, name: str, milliseconds: int) -> None:
        queue, model, id_, token = self.queue, self.model, lease.item_id, lease.token
        asked = token in self.called or milliseconds > 0
        hold = min(milliseconds, self.limits.payment_timeout_ms)
        ways: dict[str, tuple[Callable[[], Awaitable[Any]], Callable[[], Any]]] = {
            "extend": (lambda: queue.extend(lease), lambda: model.extend(id_, token)),
            "hand_back": (
                lambda: queue.hand_back(lease, asked=asked),
                lambda: model.hand_back(id_, token, asked=asked),
            ),
            "retry": (
                lambda: queue.settle_retry(lease, milliseconds, "down"),
                lambda: model.retry(id_, token, milliseconds),
            ),
            "wait": (
                lambda: queue.settle_retry(lease, milliseconds, "away", uses_up=False),
                lambda: model.retry(id_, token, milliseconds, uses_up=False),
            ),
            "held": (
                lambda: queue.settle_held(lease, Held("B", "", milliseconds)),
                lambda: model.held(id_, token, hold),
            ),
            "rejected": (
                lambda: queue.settle_rejected(lease, "no"),
                lambda: model.refused(id_, token, short=False),
            ),
            "short": (
                lambda: queue.settle_short(lease, "none"),
                lambda: model.refused(id_, token, short=True),
            ),
            "confirmed": (
                lambda: queue.settle_confirmed(lease, "R"),
                lambda: model.paid(id_, token, Task.CONFIRM),
            ),
            "unconfirmed": (
                lambda: queue.settle_unconfirmed(lease, "no"),
                lambda: model.unconfirmed(id_, token),
            ),
            "gone": (lambda: queue.settle_gone(lease, "gone"), lambda: model.gone(id_, token)),
            "released": (lambda: queue.settle_released(lease), lambda: model.released(id_, token)),
            "paid": (
                lambda: queue.settle_paid(lease, "R"),
                lambda: model.paid(id_, token, Task.RELEASE),
            ),
            "paying": (lambda: queue.settle_paying(lease), lambda: model.paying(id_, token)),
        }
        ask, expect = ways[name]
        real, expected = self.both(ask(), expect)
        if isinstance(expected, Fenced) and not isinstance(real, Fenced):
            raise PromiseBroken(5, f"{name} under the ended lease {token} was taken: {real}")
