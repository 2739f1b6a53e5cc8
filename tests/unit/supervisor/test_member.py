from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from booking_worker.api.health import Grade
from booking_worker.supervisor.child import pack
from booking_worker.supervisor.member import Link, Member
from tests.support.processes import child_environment


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_arrive_one_by_one_until_the_supervisor_is_gone(sockets):
    ours, theirs = sockets
    link = Link(theirs)
    both = pack({"number": 1}) + pack({"number": 2})
    ours.sendall(both[:5])
    ours.sendall(both[5:])
    assert [link.hear(), link.hear()] == [{"number": 1}, {"number": 2}]
    ours.close()
    assert link.hear() is None
    link.tell({"ready": True})


def test_a_supervisor_that_went_with_something_unread_is_gone_too(sockets):
    ours, theirs = sockets
    link = Link(theirs)
    link.tell({"ready": True})
    ours.close()
    assert link.hear() is None


async def test_it_knows_how_all_are_by_what_it_heard(sockets, monkeypatch: pytest.MonkeyPatch):
    ours, theirs = sockets
    member = Member(Link(theirs))
    assert (await member.check()).grade is Grade.DEGRADED
    ours.sendall(pack({"ready": 1, "of": 2, "troubles": ["process 2 starts"]}))
    ended: list[int] = []
    monkeypatch.setattr("booking_worker.supervisor.member.os._exit", ended.append)
    ours.shutdown(socket.SHUT_WR)
    member.hear_until_alone()
    assert ended == [1]
    assert await member.check() == (Grade.DEGRADED, "1 of 2 are ready; process 2 starts")


async def test_all_is_well_when_nothing_else_was_heard(sockets, monkeypatch: pytest.MonkeyPatch):
    ours, theirs = sockets
    member = Member(Link(theirs))
    ours.sendall(pack({"ready": 2, "of": 2, "troubles": []}))
    monkeypatch.setattr("booking_worker.supervisor.member.os._exit", lambda _: None)
    ours.shutdown(socket.SHUT_WR)
    member.hear_until_alone()
    assert await member.check() == (Grade.HEALTHY, "2 of 2 are ready")


def test_without_a_supervisor_it_says_whose_option_that_is(
    tmp_path_factory: pytest.TempPathFactory,
):
    ran = subprocess.run(
        [sys.executable, "-m", "booking_worker", "serve", "--child"],
        env=child_environment(tmp_path_factory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == "Error: --child is for `booking-worker serve --processes` to say\n"
