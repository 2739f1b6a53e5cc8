from __future__ import annotations

import hashlib

import pytest
from redis.asyncio import Redis, RedisCluster

from booking_worker.queue import scripts

NOW = {"includes/now": "-- A clock that stands still.\n\nlocal now = 5\n"}

GIVEN = """\
-- A transition of a test.
--
-- KEYS  items  hash  what
-- Not a part of the section any more: items2
-- ARGV  token  int  a number
--       limit
--       rest   each
-- RETURNS nothing
-- ERRORS  ONE TWO
--         THREE
-- @include now

-- KEYS  positions  not a header any more
return nil
"""

TOLD_BACK = """\
-- ARGV  first   int
--       rest    each
--       second  int
local function text(number) return string.format('%.0f', number) end
return { text(first), text(second), unpack(ARGV, rest + 1) }
"""


def test_every_lua_file_is_a_transition_and_no_include_is():
    assert len(scripts.names()) == 40
    assert "join" in scripts.names()
    assert "now" not in scripts.names()


def test_the_header_becomes_names():
    script = scripts.load("heartbeat")
    assert script.keys == ("workers",)
    assert (script.ints, script.args, script.each) == (("slots", "ttl_ms"), ("worker_id",), "")
    assert script.text.splitlines()[:3] == [
        "local workers = KEYS[1]",
        "local slots, ttl_ms = cmsgpack.unpack(ARGV[1])",
        "local worker_id = ARGV[2]",
    ]
    given = {"worker_id": "w", "ttl_ms": 3, "slots": 2, "unasked": 1}
    assert script.argv(given) == [b"\x02\x03", "w"]


async def test_numbers_of_all_sizes_arrive_as_they_are(redis_client: Redis | RedisCluster):
    script = scripts.load("extend", {"extend": TOLD_BACK})
    numbers = [0, -1, 127, 128, 70_000, -70_000, 1_900_000_000_000, 2**53, -(2**40)]
    for first, second in zip(numbers, reversed(numbers), strict=True):
        args = script.argv({"first": first, "second": second}, "a", "b")
        said = await redis_client.eval(script.text, 0, *args)  # type: ignore[misc]
        assert said == [str(first).encode(), str(second).encode(), b"a", b"b"]


def test_the_sha_is_what_the_engine_calls_it():
    script = scripts.load("status")
    assert script.sha == hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()


def test_an_include_comes_once_and_before_those_who_need_it():
    text = scripts.load("settle_retry").text
    assert text.count("redis.call('TIME')") == 1
    order = [
        "local function close_up",
        "local function commit_books",
        "local function leave_line",
        "local now = redis.call('TIME')",
        "local function publish_changes",
        "local function finish",
        "local function make_ready",
        "local function leased_item",
        "local function to_dead_letter",
        "local item = leased_item()",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_key_that_two_files_name_is_passed_once():
    script = scripts.load("join")
    assert len(script.keys) == len(set(script.keys))
    assert "event_id" in script.args


def test_an_argument_of_many_values_is_the_last():
    script = scripts.load("positions")
    assert (script.ints, script.args, script.each) == ((), (), "ids")
    assert "local ids = 0" in script.text
    assert script.argv({}, "a", "b") == ["a", "b"]


def test_errors_of_includes_and_of_many_lines_are_the_scripts_own():
    assert scripts.load("cancel").errors == {"NOT_FOUND", "NOT_YOURS", "WRONG_STATUS"}
    assert scripts.load("item").errors == {"NOT_FOUND"}
    assert scripts.load("status").errors == set()


def test_a_file_can_be_given_instead():
    script = scripts.load("extend", NOW)
    assert "TIME" not in script.text
    assert "local now = 5" in script.text
    assert script.sha != scripts.load("extend").sha


def test_a_transition_can_be_given_instead_too():
    given = {"extend": GIVEN}
    script = scripts.load("extend", given | NOW)
    assert script.keys == ("items",)
    assert (script.ints, script.args, script.each) == (("token",), ("limit",), "rest")
    assert script.errors == {"ONE", "TWO", "THREE"}
    assert script.text.startswith(
        "local items = KEYS[1]\nlocal token = cmsgpack.unpack(ARGV[1])\n"
        "local limit = ARGV[2]\nlocal rest = 2\n"
    )


def test_a_file_that_is_all_header_is_no_trouble():
    script = scripts.load("extend", {"extend": "-- Nothing.\n-- KEYS  items  hash  what"})
    assert script.keys == ("items",)


def test_there_is_no_other_transition():
    with pytest.raises(FileNotFoundError):
        scripts.load("oversell")
