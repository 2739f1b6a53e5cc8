"""What a person meets first: help, examples, and a quick answer."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys

import pytest

from booking_worker.cli import options
from tests.unit.cli.conftest import Command

COMMANDS = [
    "serve",
    "demo",
    "sandbox",
    "queue status",
    "queue list",
    "queue show",
    "queue cancel",
    "dead-letters list",
    "dead-letters requeue",
    "dead-letters discard",
    "config",
    "check",
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_examples(command: Command, name: str):
    ran = command(*name.split(), "--help")
    assert ran.code == 0
    assert f"\n    booking-worker {name}" in ran.out


@pytest.mark.parametrize("name", ["", "queue", "dead-letters"])
def test_what_commands_do_is_said_in_full(command: Command, name: str):
    listed = command(*name.split(), "--help").out.split("Commands:")[1]
    assert "..." not in listed


def test_help_names_every_command(command: Command):
    out = command("--help").out
    assert all(f"  {name.split()[0]} " in out for name in COMMANDS)
    assert "..." not in out.partition("Commands:")[2]


def modules_after(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends, in an interpreter of its own."""
    program = (
        "import json, sys\n"
        "from booking_worker.cli import main\n"
        f"sys.argv = ['booking-worker', *{arguments!r}]\n"
        "try:\n    main()\n"
        "finally:\n    print(); print(json.dumps(sorted(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_help_waits_for_nothing_that_it_does_not_need():
    slow = {"grpc", "pydantic", "redis", "rich", "aiohttp", "uvloop"}
    assert not slow & modules_after("--help")


def test_config_needs_no_network():
    assert not {"grpc", "redis", "aiohttp"} & modules_after("config", "--json")


def test_a_wrong_option_is_told_as_such(command: Command):
    ran = command("queue", "list", "concert", "--limit", "many")
    assert ran.code == 2
    assert "--limit" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", [("queue", "list"), ("queue", "show"), ("queue", "status")])
def test_bytes_that_are_no_text_are_told_as_such(command: Command, name: tuple[str, ...]):
    ran = command(*name, "concert\udcff")
    assert ran.code in {1, 2}
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_who_has_no_login_name_is_known_by_an_id(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
):
    def nameless() -> str:
        raise error("getpwuid(): uid not found")

    assert options.operator_name() == getpass.getuser()
    monkeypatch.setattr(getpass, "getuser", nameless)
    assert options.operator_name() == f"uid-{os.getuid()}"
