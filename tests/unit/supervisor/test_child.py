from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from booking_worker.config import Settings, load
from booking_worker.supervisor import child
from booking_worker.supervisor.child import Child, hello, pack, unpacker
from tests.support.wait import wait_until
from tests.unit.supervisor.conftest import SMALL_MEMBER


def sent(message: dict[str, Any]) -> dict[str, Any]:
    """The message as it arrives."""
    messages = unpacker()
    messages.feed(pack(message))
    (arrived,) = messages
    return arrived


@pytest.mark.parametrize(
    "given",
    [
        {},
        {
            "data_dir": "/somewhere/else",
            "queue_cleanup_interval": "1m30s",
            "worker_lease_seconds": "7.5",
            "redis_password": "secret",
            "redis_lock_nodes": "one:1, [::1]:2",
            "metrics_enabled": "false",
            "grpc_ticket_service_endpoint": "",
        },
    ],
)
def test_a_child_runs_with_the_settings_of_its_supervisor_whatever_its_surroundings_say(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = load(tmp_path / "none", given)
    arrived = sent(hello(2, settings, worker_pool_size=3))
    monkeypatch.setenv("QUEUE_MAX_SIZE", "7")
    monkeypatch.setenv("DATA_DIR", "/changed/since")
    assert arrived["number"] == 2
    told = load(tmp_path / "none", arrived["settings"])
    assert told.model_dump() == {**settings.model_dump(), "worker_pool_size": 3}


def test_every_setting_is_told():
    assert set(hello(1, Settings(_env_file=None))["settings"]) == set(Settings.model_fields)


def test_a_secret_is_told_and_what_cannot_be_is_an_error():
    assert sent({"password": SecretStr("hush")}) == {"password": "hush"}
    with pytest.raises(TypeError, match="the type object"):
        pack({"odd": object()})


async def start(
    directory: Path, heard: list[dict[str, Any]], command: tuple[str, ...] = ()
) -> Child:
    first = {"settings": {"ends_while": str(directory / "f"), "news": str(directory / "news")}}
    return await Child.start(first, heard.append, command or (sys.executable, str(SMALL_MEMBER)))


async def test_it_is_told_and_heard_and_its_end_is_known(tmp_path: Path):
    heard: list[dict[str, Any]] = []
    one = await start(tmp_path, heard)
    await wait_until(lambda: len(heard) == 2)
    assert heard[0] == {"ready": True}
    one.tell({"ready": 1})
    await wait_until((tmp_path / "news").exists)
    one.terminate()
    one.terminate()
    assert await one.ended() == -signal.SIGTERM
    one.terminate()
    one.kill()
    one.tell({"ready": 2})


async def test_it_is_in_a_session_of_its_own(tmp_path: Path):
    one = await start(tmp_path, [])
    assert os.getsid(one.pid) == one.pid
    one.kill()
    assert await one.ended() == -signal.SIGKILL


async def test_what_it_said_last_is_heard_after_its_end(tmp_path: Path):
    said = (
        "import socket, msgpack\n"
        "link = socket.socket(fileno=0)\n"
        "for number in range(2000): link.sendall(msgpack.packb({'number': number}))\n"
    )
    heard: list[dict[str, Any]] = []
    one = await start(tmp_path, heard, (sys.executable, "-c", said))
    # It may go with what it was told unread, and still everything that it said counts.
    await one.ended()
    assert [message["number"] for message in heard] == list(range(len(heard)))
    assert heard


def test_what_lies_in_the_working_directory_is_not_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "uvloop.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    code = "import booking_worker, uvloop, sys; sys.exit(7)"
    command = [*child.COMMAND[:2], "-c", code]
    assert os.spawnve(os.P_WAIT, sys.executable, command, child._environment()) == 7
