from __future__ import annotations

import hashlib

import pytest

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


def test_every_lua_file_is_a_transition_and_no_include_is():
    assert len(scripts.names()) == 40
    assert "join" in scripts.names()
    assert "now" not in scripts.names()


def test_the_header_becomes_names():
    script = scripts.load("heartbeat")
    assert script.keys == ("workers",)
    assert script.args == ("worker_id", "slots", "ttl_ms")
    assert not script.each
    assert script.text.splitlines()[:4] == [
        "local workers = KEYS[1]",
        "local worker_id = ARGV[1]",
        "local slots = tonumber(ARGV[2])",
        "local ttl_ms = tonumber(ARGV[3])",
    ]


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
    assert script.each
    assert script.args[-1] == "ids"
    assert f"local ids = {len(script.args) - 1}" in script.text


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
    assert script.args == ("token", "limit", "rest")
    assert script.errors == {"ONE", "TWO", "THREE"}
    assert script.each
    assert script.text.startswith(
        "local items = KEYS[1]\nlocal token = tonumber(ARGV[1])\n"
        "local limit = ARGV[2]\nlocal rest = 2\n"
    )


def test_a_file_that_is_all_header_is_no_trouble():
    script = scripts.load("extend", {"extend": "-- Nothing.\n-- KEYS  items  hash  what"})
    assert script.keys == ("items",)


def test_there_is_no_other_transition():
    with pytest.raises(FileNotFoundError):
        scripts.load("oversell")
