from __future__ import annotations

import inspect
import re

import pytest

from booking_worker.domain import errors
from booking_worker.domain.errors import BookingWorkerError

EXAMPLES = [
    (errors.InvalidSettings(["A: got 1, takes 2", "B: got 3, takes 4"]), "A: got 1, takes 2\nB: got 3, takes 4"),
    (errors.InvalidRequest("user_id", "is missing"), "user_id: is missing"),
    (errors.IdempotencyConflict(), "idempotency-key: was used for another request already"),
    (errors.ItemNotFound("x.e"), "no queue item 'x.e'"),
    (errors.NotYourItem("x.e"), "queue item 'x.e' belongs to another user"),
    (errors.WrongStatus("x.e", "expired", "pay"), "cannot pay while the item is expired"),
    (errors.QueueFull("e", 7), "the queue of 'e' is full (7 waiting)"),
    (errors.UserHasPlace("x.e"), "the user of 'x.e' has another place in the line by now"),
    (errors.Fenced("x.e", 3), "the lease 3 of 'x.e' has ended; its answer changes nothing"),
    (errors.EngineUnavailable("no answer"), "no answer"),
    (errors.EngineInUse("in use"), "in use"),
    (errors.EngineFailed("does not start"), "does not start"),
    (
        errors.LayoutTooNew(2, 1),
        (
            "the engine's keys have the layout 2, and this version of booking-worker knows layouts"
            " up to 1: run the later version again, or restore a backup that was taken before the"
            " upgrade (docs/upgrade.md)"
        ),
    ),
    (errors.PeerUnavailable("booking", "no answer"), "booking: no answer"),
    (errors.PeerRefused("booking", "seat taken"), "booking: seat taken"),
    (errors.PeerBreakerOpen("booking", "not asked"), "booking: not asked"),
]  # fmt: skip


@pytest.mark.parametrize("error, message", EXAMPLES, ids=lambda x: type(x).__name__)
def test_messages_name_the_facts(error: BookingWorkerError, message: str):
    assert str(error) == message
    assert isinstance(error, BookingWorkerError)


def test_errors_carry_their_facts():
    assert errors.InvalidSettings(iter(["a", "b"])).problems == ("a", "b")
    request = errors.InvalidRequest("f", "p")
    assert (request.field, request.problem) == ("f", "p")
    assert errors.ItemNotFound("i").item_id == "i"
    assert errors.NotYourItem("i").item_id == "i"
    assert errors.UserHasPlace("i").item_id == "i"
    status = errors.WrongStatus("i", "s", "w")
    assert (status.item_id, status.status, status.wanted) == ("i", "s", "w")
    full = errors.QueueFull("e", 5)
    assert (full.event_id, full.max_size) == ("e", 5)
    assert full.retry_after_seconds > 0
    fenced = errors.Fenced("i", 4)
    assert (fenced.item_id, fenced.token) == ("i", 4)
    peer = errors.PeerRefused("booking", "no")
    assert (peer.peer, peer.message) == ("booking", "no")


def test_the_tree_at_the_top_of_the_file_is_the_tree():
    drawn: list[tuple[str, str | None]] = []
    parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ |'-]*)([A-Z]\w+)(?:  |$)", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        while parents and parents[-1][0] >= depth:
            parents.pop()
        drawn.append((name, parents[-1][1] if parents else None))
        parents.append((depth, name))
    classes = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, BookingWorkerError)
    ]
    real = [
        (cls.__name__, None if cls is BookingWorkerError else cls.__bases__[0].__name__)
        for cls in classes
    ]
    assert sorted(drawn, key=str) == sorted(real, key=str)


def test_every_error_has_an_example_here():
    leaves = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, BookingWorkerError) and not cls.__subclasses__()
    }
    assert leaves <= {type(error) for error, _ in EXAMPLES}
