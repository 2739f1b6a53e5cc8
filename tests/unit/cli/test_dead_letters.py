from __future__ import annotations

from booking_worker.domain.model import Status
from tests.support.api import on_one_engine
from tests.unit.cli.conftest import Served

pytestmark = on_one_engine


async def test_dead_letters_of_every_event_are_listed(served: Served):
    assert (await served("dead-letters", "list")).out == "No dead letters.\n"
    items = [await served.api.bring_to(Status.FAILED, user) for user in ("ann", "bob")]
    listed = (await served("dead-letters", "list", "--json")).json
    assert [one["item_id"] for one in listed] == items
    one = (await served("dead-letters", "list", "failed-bob", "--json")).json
    assert [letter["item_id"] for letter in one] == items[1:]
    out = (await served("dead-letters", "list", "failed-bob")).out
    assert items[1] in out
    assert "down" in out


async def test_a_dead_letter_goes_back_to_its_place(served: Served):
    item_id = await served.api.bring_to(Status.FAILED)
    ran = await served("dead-letters", "requeue", item_id)
    assert (ran.code, ran.out) == (0, f"{item_id} is waiting again.\n")
    assert (await served.api.queue.item(item_id)).status is Status.WAITING


async def test_a_dead_letter_is_given_up(served: Served):
    item_id = await served.api.bring_to(Status.FAILED)
    ran = await served("dead-letters", "discard", item_id, "--json")
    assert ran.json == [{"item_id": item_id, "status": "discarded"}]
    assert (await served("dead-letters", "list")).out == "No dead letters.\n"


async def test_one_that_cannot_be_put_back_does_not_keep_the_others(served: Served):
    waiting = await served.api.join("eve")
    dead = await served.api.bring_to(Status.FAILED)
    ran = await served("dead-letters", "requeue", waiting, dead)
    assert ran.code == 1
    assert ran.out == f"{dead} is waiting again.\n"
    assert ran.err.startswith(f"Error: {waiting}: ")
    again = await served("dead-letters", "discard", waiting, "--json")
    assert again.code == 1
    assert [set(one) for one in again.json] == [{"item_id", "error"}]
