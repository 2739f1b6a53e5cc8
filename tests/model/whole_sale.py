"""Everything that may happen to one event, in any order: users, workers, clocks, operators."""

from __future__ import annotations

from booking_worker.domain.item_id import new_item_id
from booking_worker.domain.model import Join, Status
from booking_worker.queue import keys
from booking_worker.queue.booking_queue import CapacityQuestion
from tests.model.reference_item import HOLDING, TASK_OF, Question
from tests.model.sale import EVENT, Choose
from tests.model.workers import Workers
from tests.support.stage import a_join

USERS = ("ann", "ben", "cem", "dîa", "eve")
INDEXES = ("positions", "timeouts", "tasks", "admitted", "dead", "users")
EVENT_PART = new_item_id(EVENT)[12:]
LIVE = tuple(status for status in Status if not status.is_final)


class WholeSale(Workers):
    """All of it."""

    def may_happen(self) -> dict[str, int]:
        model, items = self.model, list(self.model.items.values())
        claimable = any(item.ready for item in items) or (model.known and model.waiting())
        due = any(item.deadline is not None and item.deadline <= model.now for item in items)
        wrong = 1 if items else 0
        weights = {
            "work": 8 if claimable else 0,
            "settle": 8 if self.leases else 0,
            "expire": 14 if due else 1,
            "until_the_next_deadline": 3 if any(item.deadline for item in items) else 0,
            "dead_letter": 6
            if any(not it.discarded for it in model.among(Status.FAILED))
            else wrong,
            "pay": 4 if model.among(Status.AWAITING_PAYMENT) else wrong,
            "refresh": 6 if not model.known else 1 if model.exact else 3,
            "join": 3 if items else 12,
            "cancel": 2 if items else 0,
            "claim": 3 if claimable else 1,
            "call": 1 if self.leases else 0,
            "time_passes": 1,
            "ask_capacity": 1,
            "the_ticket_service_counts": 2 if self.questions else 0,
            "an_answer_arrives": 2 if self.replies else 0,
            "a_wrong_answer_arrives": 1 if self.questions and not self.honest else 0,
            "sell_out": 1,
            "a_booking_ends_by_itself": 1 if self.world.booked else 0,
            "somebody_else_sells_one": 1 if self.world.left and not self.honest else 0,
            "the_engine_is_another": 1 if model.answered and self.model.waiting() else 0,
            "an_entry_is_lost_and_swept": 1,
        }
        focus = self.session.focus
        return {name: weight * focus.get(name, 1) for name, weight in weights.items() if weight}

    # --- users

    def join(self, choose: Choose) -> None:
        joins = [self._join(choose) for _ in range(choose((1, 1, 2, 3), "joins"))]
        self.both(self.queue.join(EVENT, joins), lambda: self.model.join(joins))

    def _join(self, choose: Choose) -> Join:
        key = choose(("", "", "k1", "k2"), "key")
        digest = choose(("d1", "d2"), "digest") if key else ""
        join = a_join(choose(USERS, "user"), choose((1, 2, 3, 4), "seats"), EVENT, key, digest)
        # The same ids in every run of the same steps, as who is first of two is told by them.
        self.ids += 1
        return join._replace(item_id=f"{self.ids:012}"[::-1] + EVENT_PART)

    def cancel(self, choose: Choose) -> None:
        item = self.pick(choose, *LIVE)
        who = choose((item.user_id, item.user_id, "", "ann"), "who")
        self.both(
            self.queue.cancel(item.item_id, who, "no", "test"),
            lambda: self.model.cancel(item.item_id, who),
        )

    def pay(self, choose: Choose) -> None:
        item = self.pick(choose, Status.AWAITING_PAYMENT)
        who = choose((item.user_id, item.user_id, "ann"), "who")
        self.both(
            self.queue.ask_confirm(item.item_id, who, "PAY"),
            lambda: self.model.ask_confirm(item.item_id, who),
        )

    # --- time

    def time_passes(self, choose: Choose) -> None:
        """Forwards, or by a step back."""
        self._advance(choose((500, 1, 3_000, 3_000, 60_000, 200_000, -5_000), "ms"))

    def until_the_next_deadline(self, choose: Choose) -> None:
        """To the very millisecond, or one beside."""
        deadlines = [item.deadline for item in self.model.items.values() if item.deadline]
        later = [deadline for deadline in deadlines if deadline > self.model.now] or deadlines
        beside = choose((0, 0, 1, -1), "beside")
        self._advance(min(later) + beside - self.model.now)

    def _advance(self, milliseconds: int) -> None:
        self.run(self.clock.advance(milliseconds))
        self.model.now = self.clock.now

    def expire(self, choose: Choose) -> None:
        limit = choose((500, 500, 1), "limit")
        expired = self.run(self.queue.expire(EVENT, limit))
        self.outcomes.append((expired.moved, self.model.expire(limit)))
        deadlines = [item.deadline for item in self.model.items.values() if item.deadline]
        next_in = max(0, min(deadlines) - self.model.now) if deadlines else None
        self.outcomes.append((expired.next_in_ms, next_in))

    # --- capacity

    def refresh(self, choose: Choose) -> None:
        """Nothing happens between the question and the answer."""
        self.ask_capacity(choose)
        self._set_capacity(self.questions[-1], self.world.left)

    def ask_capacity(self, choose: Choose) -> None:
        question = self.run(self.queue.ask_capacity(EVENT))
        self.outcomes.append((question[:3], tuple(self.model.ask_capacity())))
        self.questions.append(question)

    def the_ticket_service_counts(self, choose: Choose) -> None:
        """Its answer is on its way: it may be older than what happens until it is there."""
        question = choose(self.questions[-4:], "question")
        self.replies.append((question, self.world.left))

    def an_answer_arrives(self, choose: Choose) -> None:
        self._set_capacity(*choose(self.replies[-4:], "reply"))

    def a_wrong_answer_arrives(self, choose: Choose) -> None:
        """More than there are, or less, or that there is no limit."""
        question = choose(self.questions[-4:], "question")
        self._set_capacity(question, choose((None, *range(-1, 13)), "answer"))

    def _set_capacity(self, question: CapacityQuestion, available: int | None) -> None:
        self.both(
            self.queue.set_capacity(EVENT, question, available),
            lambda: self.model.set_capacity(
                Question(question.settled_seats, question.moves, question.refreshes),
                available,
            ),
        )

    def sell_out(self, choose: Choose) -> None:
        limit = choose((500, 1), "limit")
        self.both(self.queue.sell_out(EVENT, limit), lambda: self.model.sell_out(limit))

    # --- the world outside

    def a_booking_ends_by_itself(self, choose: Choose) -> None:
        """It runs out, or it is paid past the queue."""
        held = [item.item_id for item in self.model.among(*HOLDING)]
        held = [item_id for item_id in held if item_id in self.world.booked]
        if held:
            paid = choose((True, False), "paid")
            item_id = choose(held, "item")
            (self.world.pay_directly if paid else self.world.run_out)(item_id)

    def somebody_else_sells_one(self, choose: Choose) -> None:
        self.world.tickets -= 1

    def the_engine_is_another(self, choose: Choose) -> None:
        """As after a restart or a failover: nobody is admitted before a refresh."""
        state = keys.of_event(EVENT)["state"]
        self.run(self.session.client.hset(state, "epoch", "another engine"))
        self.model.known = False

    # --- operators and housekeeping

    def dead_letter(self, choose: Choose) -> None:
        item_id = self.pick(choose, Status.FAILED).item_id
        if choose(range(4), "requeue"):
            real, expected = self.queue.requeue(item_id, "operator:eve"), self.model.requeue
        else:
            real, expected = self.queue.discard(item_id, "operator:eve"), self.model.discard
        self.both(real, lambda: expected(item_id))

    def an_entry_is_lost_and_swept(self, choose: Choose) -> None:
        """The sweep says so, and nothing else is any different."""
        index = choose(INDEXES, "index")
        entries = sorted(getattr(self.seen, index))
        if not entries:
            assert self.run(self.queue.sweep(EVENT)) == []
            return
        entry = choose(entries, "entry")
        key, client = keys.of_event(EVENT)[index], self.session.client
        self.run(client.hdel(key, entry) if index == "users" else client.zrem(key, entry))
        assert self.run(self.queue.sweep(EVENT)) != []
        if index == "users":
            places = self.run(client.hget(key, entry))
            self.model.places[entry] = places.decode().split()
        elif index == "timeouts" and self.model.items[entry].status in TASK_OF:
            item = self.model.items[entry]
            item.deadline = None if item.token is None else self.model.now + self.limits.lease_ms
