"""What of a file a power cut would take now: pages that are written but not on disk."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Final

_CACHESTAT: Final = 451
"""The number of cachestat(2), the same on every architecture; in Linux since 6.5."""


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Stat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recent")
    )


def pages_not_on_disk(*files: Path) -> int:
    """How many pages of the files a power cut would take.

    Raises:
        OSError: the system does not tell.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux tells")
    libc = ctypes.CDLL(None, use_errno=True)
    pages = 0
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            stat = _Stat()
            if libc.syscall(_CACHESTAT, descriptor, ctypes.byref(_Range()), ctypes.byref(stat), 0):
                raise OSError(ctypes.get_errno(), "cachestat")
            pages += stat.dirty + stat.writeback
        finally:
            os.close(descriptor)
    return pages


def why_not_told(directory: Path) -> str:
    """Why it can't be told in this directory; empty when it can."""
    probe = directory / "probe"
    with probe.open("wb", buffering=0) as file:
        file.write(b"x" * 100)
        try:
            before = pages_not_on_disk(probe)
            os.fdatasync(file.fileno())
            after = pages_not_on_disk(probe)
        except OSError as error:
            return f"the system does not tell what is on disk: {error}"
    return "" if before and not after else "the file system is in memory"
