"""The header of a Lua file is its contract: what it names is used, and what is used it names."""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict
from importlib import resources

import pytest
from redis.exceptions import ResponseError

from booking_worker.domain.errors import BookingWorkerError
from booking_worker.queue import keys, line, scripts
from booking_worker.queue.transitions import _our_error
from tests.support.stage import LIMITS

LUA = resources.files("booking_worker.queue").joinpath("lua")
INCLUDES = sorted(
    f"includes/{path.name.removesuffix('.lua')}" for path in LUA.joinpath("includes").iterdir()
)
LOCKS = sorted(
    f"locks/{path.name.removesuffix('.lua')}" for path in LUA.joinpath("locks").iterdir()
)
"""They run on the lock nodes and are no transitions: of an event's keys they know the lock."""
FILES = [*scripts.names(), *LOCKS, *INCLUDES]

_LOCAL = re.compile(r"^local (?:function )?([\w, ]+?)(?: =|\(|$)", re.MULTILINE)
_RAISED = re.compile(r"'([A-Z_]{4,})(?: \w*)?'")


def text_of(name: str) -> str:
    return LUA.joinpath(*f"{name}.lua".split("/")).read_text(encoding="utf-8")


def body_of(name: str) -> str:
    """The code, without comments and the insides of strings that are names of other things."""
    return "\n".join(
        line.split(" -- ")[0] for line in text_of(name).splitlines() if not line.startswith("--")
    )


def header_of(name: str) -> scripts._Header:
    return scripts._parse_header(text_of(name))


def gives(name: str) -> set[str]:
    """What a file brings to those that include it: its keys, arguments and locals."""
    header = header_of(name)
    found = {word for names in _LOCAL.findall(body_of(name)) for word in names.split(", ")}
    return found | set(header.keys) | set(header.args)


def gives_all(name: str) -> set[str]:
    """The same, with what it includes itself."""
    return gives(name).union(
        *(gives_all(f"includes/{include}") for include in header_of(name).includes)
    )


def words(name: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", body_of(name)))


@pytest.mark.parametrize("name", FILES)
def test_it_says_in_a_sentence_what_it_does(name: str):
    first, *rest = text_of(name).splitlines()
    assert re.match(r"-- [A-Z].*", first), first
    lines = [line for line in rest if line.startswith("--")]
    assert "--" in lines or name.startswith("includes/")


@pytest.mark.parametrize("name", FILES)
def test_every_key_and_argument_that_it_names_is_used_in_it(name: str):
    header = header_of(name)
    assert {*header.keys, *header.args} - words(name) == set()


@pytest.mark.parametrize("name", FILES)
def test_every_include_is_used_in_it(name: str):
    for include in header_of(name).includes:
        assert gives_all(f"includes/{include}") & words(name), include


@pytest.mark.parametrize("name", FILES)
def test_no_include_is_needed_that_only_another_brings(name: str):
    """Whoever wakes says so, and does not hope that an include does."""
    if "wake" in re.findall(r"\b(\w+)\(", body_of(name)) and name != "includes/wake":
        assert "wake" in header_of(name).includes or any(
            "wake" in header_of(f"includes/{include}").includes for include in _all_includes(name)
        )


def _all_includes(name: str) -> set[str]:
    direct = set(header_of(name).includes)
    return direct.union(*(_all_includes(f"includes/{include}") for include in direct))


@pytest.mark.parametrize("name", [*scripts.names(), *LOCKS])
def test_a_transition_says_what_it_answers(name: str):
    assert "\n-- RETURNS " in text_of(name)


@pytest.mark.parametrize("name", [*scripts.names(), *LOCKS])
def test_it_uses_no_key_or_argument_by_its_number(name: str):
    numbered = re.findall(r"\b(?:KEYS|ARGV)\[\d+\]", body_of(name))
    assert numbered == []


@pytest.mark.parametrize("name", scripts.names())
def test_every_key_and_argument_is_one_that_python_passes(name: str):
    script = scripts.load(name)
    assert set(script.keys) <= set(keys.of_event("E"))
    method = _method_source(name)
    for arg in (*script.ints, *script.args):
        given = arg in asdict(LIMITS) or arg in {"actor", "event_id"} or arg in method
        assert given, arg


def _method_source(name: str) -> str:
    from booking_worker.queue.booking_queue import BookingQueue

    (source,) = (
        inspect.getsource(method)
        for _, method in inspect.getmembers(BookingQueue, inspect.isfunction)
        if re.search(rf'_(?:run|run_for|run_status|settle)\(\s*"{name}"', inspect.getsource(method))
    )
    if "_settle(" in source:
        source += inspect.getsource(BookingQueue._settle)
    return source + '"confirm" "release" "reserve"' * (name == "claim")


def errors_of(name: str) -> set[str]:
    """The errors that the code of a file makes."""
    body = body_of(name)
    commands = set(re.findall(r"redis\.call\('([A-Z]+)'", body)) | {
        "LIMIT", "COUNT", "WITHSCORES", "MAXLEN", "MINID",
    }  # fmt: skip
    fenced = {"FENCED"} if "return FENCED" in body else set()
    return (set(_RAISED.findall(body)) - commands) | fenced


@pytest.mark.parametrize("name", scripts.names())
def test_it_names_exactly_the_errors_that_it_makes(name: str):
    assert header_of(name).errors == errors_of(name)


OF_A_JOIN = {"QUEUE_FULL", "IDEMPOTENCY_CONFLICT"}


@pytest.mark.parametrize(
    "error", sorted({error for name in scripts.names() for error in header_of(name).errors})
)
def test_every_error_is_known_to_python(error: str):
    if error in OF_A_JOIN:
        assert error == "IDEMPOTENCY_CONFLICT" or error in inspect.getsource(line.Line)
        return
    made = _our_error(ResponseError(f"{error} waiting"), {"item_id": "I", "token": 1})
    assert isinstance(made, BookingWorkerError)
    assert not isinstance(made, ResponseError)


def test_all_40_are_walked():
    assert len(scripts.names()) == 40
    assert len(LOCKS) == 2
    assert len(INCLUDES) == 17
