"""The queue is compared with the reference, step by step, and the promises hold after each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.model.promises import PromiseBroken
from tests.model.sale import Choose, PartedWays, Session
from tests.model.whole_sale import WholeSale
from tests.support.engines import EXTERNAL_ENGINES, FIRST_ENGINE, Shared

STEPS_EACH = 50
USUAL_STEPS = 5_200
LEAST_STEPS = 5_000
MOST_STEPS = 10_000
"""By then a guard that is switched off must have been noticed."""
STEPS_THERE = 1_000
"""On engines that run the same scripts, elsewhere."""

on_one_engine = pytest.mark.parametrize(
    "engine", FIRST_ENGINE, indirect=True, ids=lambda made: made.name
)


class QueueMachine(RuleBasedStateMachine):
    """Lets hypothesis choose, and shorten what it finds."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.sale = WholeSale(session)
        self.healthy = False

    @initialize(data=st.data())
    def begin(self, data: Any) -> None:
        self.sale.begin(chosen_by(data))
        self.healthy = True

    @rule(data=st.data())
    def step(self, data: Any) -> None:
        self.healthy = False
        self.sale.step(chosen_by(data))
        self.healthy = True

    def teardown(self) -> None:
        if self.healthy:
            self.sale.end()


def chosen_by(data: Any) -> Choose:
    return lambda options, label: data.draw(st.sampled_from(options), label)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as made:
        yield made


@on_one_engine
@pytest.mark.timeout(0)
def test_the_queue_is_what_the_design_says(
    engine: Shared, runner: asyncio.Runner, pytestconfig: pytest.Config
):
    """The same steps each time; by ``--model-steps N`` others, whose seed is told on failure."""
    wanted: int = pytestconfig.getoption("--model-steps")
    session = Session(runner, engine.client())
    try:
        run_state_machine_as_test(
            lambda: QueueMachine(session),
            settings=settings(
                max_examples=max(1, (wanted or USUAL_STEPS) // STEPS_EACH),
                stateful_step_count=STEPS_EACH,
                deadline=None,
                derandomize=not wanted,
                database=None,
                print_blob=True,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        runner.run(session.client.aclose())
    assert wanted or session.steps >= LEAST_STEPS


def walk(engine: Shared, runner: asyncio.Runner, steps: int, **how: Any) -> Session:
    """The same sales, chosen at random by a fixed seed: quick, and nothing is shortened."""
    session = Session(runner, engine.client(), **how)
    chance = random.Random(7)
    try:
        while session.steps < steps:
            sale = WholeSale(session)
            sale.begin(lambda options, _: chance.choice(options))
            with suppress(PartedWays):
                for _ in range(STEPS_EACH):
                    sale.step(lambda options, _: chance.choice(options))
                sale.end()
    finally:
        runner.run(session.client.aclose())
    return session


@on_one_engine
def test_at_random_it_is_as_well(engine: Shared, runner: asyncio.Runner):
    """Without a guard switched off nothing is found, by the walk that finds all of them below."""
    assert walk(engine, runner, 1_000).steps >= 1_000
    assert walk(engine, runner, 500, compare=False).steps >= 500


@pytest.mark.parametrize("engine", EXTERNAL_ENGINES, indirect=True, ids=lambda made: made.name)
def test_it_is_as_well_on_servers_of_ones_own(engine: Shared, runner: asyncio.Runner):
    assert walk(engine, runner, STEPS_THERE).steps >= STEPS_THERE


def patched(name: str, guard: str, without: str) -> dict[str, str]:
    """A script with its guard switched off."""
    file = resources.files("booking_worker.queue").joinpath("lua", *f"{name}.lua".split("/"))
    text = file.read_text(encoding="utf-8")
    assert text.count(guard) == 1, f"{name} has no such guard any more"
    return {name: text.replace(guard, without)}


REFRESHES = {
    "ask_capacity": 8, "the_ticket_service_counts": 8, "an_answer_arrives": 12, "refresh": 0,
}  # fmt: skip

GUARDS: dict[str, tuple[int, str, str, str, dict[str, int]]] = {
    "seats left": (1, "claim", "item.seats > capacity", "false", {}),
    "settled since the question": (
        1, "set_capacity", "(settled - settled_seats)", "0", REFRESHES,
    ),
    "still processing": (
        1, "set_capacity", " + processing + releasing", " + releasing", REFRESHES,
    ),
    "being released": (
        1, "set_capacity", " + processing + releasing", " + processing",
        {"refresh": 4, "call": 6, "settle": 2, "cancel": 2},
    ),
    "dead since the question": (
        1, "includes/books", "    add('settled_seats', item.seats)\n", "",
        REFRESHES | {"call": 5, "settle": 3, "an_answer_arrives": 6},
    ),
    "counted at the end": (
        2, "includes/item", "  add(status == 'sold_out' and 'sold_out_items' or status, 1)\n", "",
        {},
    ),
    "in order": (3, "claim", "'ZRANGE', positions", "'ZREVRANGE', positions", {}),
    "one place each": (4, "includes/has_place", "#live >= places_per_user", "false", {}),
    "one place each, when put back": (
        4, "requeue", ">= places_per_user", ">= 99", {"join": 8, "dead_letter": 2},
    ),
    "token": (5, "includes/fence", "item.more.token == under", "item.more.token",
        {"claim": 3, "settle": 2, "until_the_next_deadline": 3},
    ),
    "seats put back": (
        6, "settle_rejected", "leave_processing(item, 'capacity')", "add('processing', -1)", {},
    ),
}  # fmt: skip
"""Each: the promise, the file, its guard, what stands there without it, and what to do often."""


@on_one_engine
@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_its_promise_is_seen_to_break(
    engine: Shared, runner: asyncio.Runner, guard: str
):
    number, name, text, without, focus = GUARDS[guard]
    scripts = patched(name, text, without)
    with pytest.raises(PromiseBroken) as caught:
        walk(engine, runner, MOST_STEPS, scripts=scripts, focus=focus, compare=False)
    assert caught.value.number == number


RULES: dict[str, tuple[str, str, str, dict[str, int]]] = {
    "a payment at the deadline is late": (
        "ask_confirm", "now < more.pay_by", "now <= more.pay_by", {"pay": 6},
    ),
    "who left from the middle is behind nobody": (
        "includes/front", "redis.call('ZADD', gaps, seq, seq)", "front = front", {"cancel": 4},
    ),
    "who comes back closes the gap": (
        "includes/line", "  redis.call('ZREM', gaps, seq)\n", "",
        {"the_engine_is_another": 6, "claim": 6, "cancel": 6, "settle": 4},
    ),
    "attempts end": ("settle_retry", "attempts > max_retries", "attempts > max_retries + 1", {}),
    "a full line": ("join", "waiting >= max_size", "waiting > max_size", {"join": 3}),
    "the same key, another request": ("includes/has_place", "known ~= digest", "false", {}),
    "another engine admits nobody": (
        "claim", "not current or admit == 0", "admit == 0", {"the_engine_is_another": 3},
    ),
}  # fmt: skip


@on_one_engine
@pytest.mark.parametrize("name", RULES)
def test_with_another_rule_the_reference_disagrees(
    engine: Shared, runner: asyncio.Runner, name: str
):
    *patch, focus = RULES[name]
    scripts = patched(*patch)
    with pytest.raises(AssertionError):
        walk(engine, runner, MOST_STEPS, scripts=scripts, focus=focus)
