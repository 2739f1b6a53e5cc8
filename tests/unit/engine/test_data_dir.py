"""One owner at a time, told by locks that die with their holder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from booking_worker.domain.errors import EngineFailed, EngineInUse
from booking_worker.engine import data_dir
from booking_worker.engine.data_dir import SOCKET_PATH_LIMIT, DataDir

_NOBODY = 65_534


def test_a_directory_is_made_private_with_its_parents(tmp_path: Path) -> None:
    owned = DataDir(tmp_path / "a" / "b")
    owned.acquire()
    assert (owned.path.stat().st_mode & 0o777) == 0o700
    owned.release()


def test_one_owner_until_released(tmp_path: Path) -> None:
    first, second = DataDir(tmp_path), DataDir(tmp_path)
    first.acquire()
    with pytest.raises(EngineInUse, match=rf"{tmp_path} is in use .*\(process {os.getpid()}\)"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_the_same_directory_by_another_name_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    first, second = DataDir(tmp_path / "real"), DataDir(tmp_path / "link")
    assert first.socket == second.socket
    first.acquire()
    with pytest.raises(EngineInUse):
        second.acquire()
    first.release()


def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EngineFailed, match=rf"DATA_DIR {path} cannot be used"):
            DataDir(path).acquire()


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A directory that this process may enter and not write to, whoever runs the tests."""
    with TemporaryDirectory(dir="/tmp") as directory:
        path = Path(directory)
        path.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:  # who may write anywhere
            os.seteuid(_NOBODY)
        yield path
        if is_root:
            os.seteuid(0)
        path.chmod(0o755)


def test_a_directory_without_write_permission_is_a_clear_error(guarded: Path) -> None:
    with pytest.raises(EngineFailed, match="cannot be used: Permission denied"):
        DataDir(guarded).acquire()


def test_a_full_disk_is_a_clear_error_and_nobody_owns_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(data_dir.os, "pwrite", full)
    owned = DataDir(tmp_path)
    with pytest.raises(EngineFailed, match=rf"DATA_DIR {tmp_path} .* No space left .* make room"):
        owned.acquire()
    monkeypatch.undo()
    again = DataDir(tmp_path)
    again.acquire()
    again.release()


def test_a_lock_of_the_server_that_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    owned = DataDir(tmp_path)
    owned.acquire()
    (tmp_path / "engine.alive").mkdir()
    for use in (owned.server_is_alive, owned.server_lock):
        with pytest.raises(EngineFailed, match=rf"DATA_DIR {tmp_path} cannot be used"):
            use()
    owned.release()


def test_the_server_lock_lives_with_who_inherited_it(tmp_path: Path) -> None:
    owned = DataDir(tmp_path)
    owned.acquire()
    assert not owned.server_is_alive()
    lock = owned.server_lock()
    server = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
    )
    os.close(lock)
    assert owned.server_is_alive()
    with pytest.raises(EngineFailed, match="still uses"):
        owned.server_lock()
    server.communicate(b"\n")
    assert not owned.server_is_alive()
    owned.release()


def test_the_service_lock_is_not_inherited(tmp_path: Path) -> None:
    owned, other = DataDir(tmp_path), DataDir(tmp_path)
    owned.acquire()
    child = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    # Popen may return a moment before the kernel closes what is not inherited.
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    owned.release()
    other.acquire()
    other.release()
    child.communicate(b"\n")


def test_the_socket_is_inside_where_the_path_is_short_enough(tmp_path: Path) -> None:
    assert DataDir(tmp_path).socket == tmp_path / "engine.sock"
    deep = DataDir(tmp_path / ("d" * 120))
    assert len(os.fsencode(deep.socket)) <= SOCKET_PATH_LIMIT
    assert deep.socket == DataDir(tmp_path / ("d" * 120)).socket
    assert deep.socket != DataDir(tmp_path / ("e" * 120)).socket


def test_a_socket_directory_that_others_may_enter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_dir.tempfile, "gettempdir", lambda: str(tmp_path))
    shared = tmp_path / f"booking-worker-{os.getuid()}"
    shared.mkdir(mode=0o755)
    owned = DataDir(tmp_path / ("d" * 120))
    with pytest.raises(EngineFailed, match="not private"):
        owned.acquire()
    shared.chmod(0o700)
    owned.acquire()
    owned.release()


def test_a_socket_directory_that_cannot_be_made_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_dir.tempfile, "gettempdir", lambda: str(tmp_path / "missing"))
    owned = DataDir(tmp_path / ("d" * 120))
    with pytest.raises(EngineFailed, match=r"cannot be made: No such file .* choose a DATA_DIR of"):
        owned.acquire()
    (tmp_path / "missing").mkdir()
    owned.acquire()
    owned.release()


def test_the_pid_of_no_server_is_none(tmp_path: Path) -> None:
    owned = DataDir(tmp_path)
    assert owned.server_pid() is None
    owned.pid_file.write_text("no number")
    assert owned.server_pid() is None
    owned.pid_file.write_text("42\n")
    assert owned.server_pid() == 42


def test_a_long_log_is_put_aside_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_dir, "LOG_KEEP_BYTES", 10)
    owned = DataDir(tmp_path)
    for text in (b"short", b" and more than ten", b"new\nlast\n"):
        log = owned.open_log()
        os.write(log, text)
        os.close(log)
    assert (tmp_path / "engine.log.1").read_bytes() == b"short and more than ten"
    assert owned.log_tail(0) == "new\nlast"
    assert owned.log_tail(4) == "last"
    assert owned.log_tail(0, lines=1) == "last"
