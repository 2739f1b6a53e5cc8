"""The directory that one embedded engine owns: its locks, its socket, its log.

Two locks, which the kernel drops when their holder dies:

- ``engine.lock`` is the service's: one service per directory.
- ``engine.alive`` is the server process's own, inherited from the service, so that it outlives
  a service that was killed: while it is held, a second server must not append to the same file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from booking_worker.domain.errors import EngineFailed, EngineInUse

SOCKET_PATH_LIMIT: Final = 100
"""Bytes; the systems' own limits are 104 (macOS, BSD) and 108 (Linux)."""

LOG_KEEP_BYTES: Final = 8 * 2**20


class DataDir:
    """The files of one embedded engine. Created by :meth:`acquire` where missing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self.log = self.path / "engine.log"
        self.pid_file = self.path / "engine.pid"
        self._lock = self.path / "engine.lock"
        self._alive = self.path / "engine.alive"
        self._lock_fd: int | None = None

    @property
    def socket(self) -> Path:
        """Where the server listens: in the directory, or for a long path in a private short one.

        The same directory always gives the same socket, so that the server of a service that
        was killed can be found.
        """
        inside = self.path / "engine.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
            return inside
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"booking-worker-{os.getuid()}" / f"{name}.sock"

    def acquire(self) -> None:
        """Become the one owner until :meth:`release`, or until this process ends.

        Raises :class:`EngineInUse` when a running service owns it, :class:`EngineFailed` when
        the directory cannot be made or written; nobody owns it then.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        if not _try_lock(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise EngineInUse(
                f"DATA_DIR {self.path} is in use by another service (process {holder}): "
                "stop that one first, or give this one a DATA_DIR of its own"
            )
        self._lock_fd = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise self._unusable(error) from error
        try:
            self._prepare_socket_dir()
        except EngineFailed:
            self.release()
            raise

    def release(self) -> None:
        """Let another service own the directory. Releasing twice is releasing."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def server_is_alive(self) -> bool:
        """Whether a server process that was started on this directory still runs."""
        descriptor = self._open_alive()
        try:
            return not _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def server_lock(self) -> int:
        """A descriptor that holds ``engine.alive``, for the server to inherit.

        The caller closes its own copy once the server has been started.

        Raises :class:`EngineFailed` when a server process still runs.
        """
        descriptor = self._open_alive()
        if not _try_lock(descriptor):
            os.close(descriptor)
            raise EngineFailed(
                f"a server process still uses DATA_DIR {self.path} (its id is in {self.pid_file})"
            )
        return descriptor

    def server_pid(self) -> int | None:
        """The id of the server process that was started last; None when it ended cleanly."""
        try:
            return int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None

    def open_log(self) -> int:
        """A descriptor to append the server's output to; the caller closes it.

        A log past 8 MiB becomes ``engine.log.1`` first.
        """
        try:
            if self.log.stat().st_size > LOG_KEEP_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
        except FileNotFoundError:
            pass
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def log_tail(self, since: int, lines: int = 6) -> str:
        """The last lines that the server wrote from byte ``since`` of its log on."""
        with self.log.open("rb") as log:
            log.seek(since)
            text = log.read().decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-lines:])

    def _open_alive(self) -> int:
        try:
            return os.open(self._alive, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> EngineFailed:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = "make room there" if is_full else "it must be a writable directory"
        return EngineFailed(f"DATA_DIR {self.path} cannot be used: {error.strerror}; {advice}")

    def _prepare_socket_dir(self) -> None:
        directory = self.socket.parent
        if directory == self.path:
            return
        shorter = f"choose a DATA_DIR of fewer than {SOCKET_PATH_LIMIT - 12} bytes"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            found = directory.lstat()
        except OSError as error:
            raise EngineFailed(
                f"the socket directory {directory} cannot be made: {error.strerror}; make room "
                f"there, set TMPDIR to a writable directory, or {shorter}"
            ) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise EngineFailed(
                f"the socket directory {directory} is not private to this user: remove it, or "
                f"{shorter}"
            )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
