from __future__ import annotations

import asyncio
import errno
import os
import select
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from booking_worker.domain.errors import InvalidSettings
from booking_worker.domain.model import Change
from booking_worker.telemetry.audit import AuditLog
from tests.support.wait import wait_until


def change(number: int = 0, **facts: Any) -> Change:
    return Change(
        change_id=f"1763925000123-{number}.0", event_id="gala", at_ms=1_763_925_000_123, actor="worker:w1",
        item_id="abcdefghijkl.gala", user_id="ann", before="waiting", after="processing", why="claimed",
        seats=2, seq=number, booking_id="b-1", booking_reference="R1", pay_by_ms=0,
    )._replace(**facts)  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


async def test_a_change_is_a_line_that_says_who_what_when_from_to_and_why(tmp_path: Path):
    audit = AuditLog(str(tmp_path / "audit"))
    await audit.start()
    await audit.write([change(3)])
    assert lines(tmp_path / "audit") == [
        {
            "at": "2025-11-23T19:10:00.123Z",
            "at_ms": 1_763_925_000_123,
            "who": "worker:w1",
            "item_id": "abcdefghijkl.gala",
            "event_id": "gala",
            "user_id": "ann",
            "from": "waiting",
            "to": "processing",
            "why": "claimed",
            "seats": 2,
            "seq": 3,
            "booking_id": "b-1",
            "change_id": "1763925000123-3.0",
        }
    ]
    await audit.stop()


@pytest.mark.parametrize(
    "at_ms, text",
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (951_782_400_007, "2000-02-29T00:00:00.007Z"),
    ],
)
async def test_the_time_is_iso_8601_in_utc_to_the_millisecond(
    tmp_path: Path, at_ms: int, text: str
):
    audit = AuditLog(str(tmp_path / "audit"))
    await audit.start()
    await audit.write([change(at_ms=at_ms)])
    await audit.stop()
    assert lines(tmp_path / "audit")[0]["at"] == text


async def test_changes_of_one_call_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writes: list[int] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        writes.append(len(data))
        return real(descriptor, data)

    audit = AuditLog(str(tmp_path / "audit"))
    await audit.start()
    monkeypatch.setattr("booking_worker.telemetry.audit.os.write", write)
    await audit.write([change(n) for n in range(500)])
    await audit.write([])
    assert len(writes) == 1
    await audit.stop()
    assert [line["seq"] for line in lines(tmp_path / "audit")] == list(range(500))


class Pipe:
    """A pipe that several audit logs write to, each as a process would."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "pipe"
        os.mkfifo(self.path)
        self.end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self.end, True)
        self.probe = os.open(self.path, os.O_WRONLY)

    def read(self) -> list[bytes]:
        """All lines, once all writers are gone."""
        with os.fdopen(self.end, "rb") as pipe:
            return pipe.readlines()

    def is_full(self) -> bool:
        """Whether who writes now has to wait."""
        return not select.select([], [self.probe], [], 0)[1]


async def write_at_once(pipe: Pipe, **facts: Any) -> list[bytes]:
    """What arrives when two write 1,000 lines each, and both are held up by a full pipe."""
    audits = [AuditLog(str(pipe.path)) for _ in range(2)]
    writing = []
    for audit in audits:
        await audit.start()
        lines = [change(n, **facts) for n in range(1000)]
        writing.append(asyncio.create_task(audit.write(lines)))
        await wait_until(pipe.is_full)
    os.close(pipe.probe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read))
    await asyncio.gather(*writing)
    for audit in audits:
        await audit.stop()
    return await reading


async def test_lines_of_several_processes_into_one_pipe_do_not_mix(tmp_path: Path):
    found = [orjson.loads(line)["seq"] for line in await write_at_once(Pipe(tmp_path))]
    assert sorted(found) == sorted([*range(1000), *range(1000)])


async def test_they_would_if_a_batch_were_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(AuditLog, "_undivided", lambda _self, data: len(data))
    torn = 0
    for line in await write_at_once(Pipe(tmp_path)):
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            torn += 1
    assert torn


async def test_a_line_that_is_longer_than_a_pipe_takes_undivided_arrives_too(tmp_path: Path):
    pipe = Pipe(tmp_path)
    audit = AuditLog(str(pipe.path))
    await audit.start()
    await audit.write([change(1), change(2, why="x" * 10_000), change(3)])
    await audit.stop()
    os.close(pipe.probe)
    assert [orjson.loads(line)["seq"] for line in pipe.read()] == [1, 2, 3]


async def test_lines_are_appended_to_what_is_there(tmp_path: Path):
    for number in range(2):
        audit = AuditLog(str(tmp_path / "audit"))
        await audit.start()
        await audit.start()
        await audit.write([change(number)])
        await audit.stop()
        await audit.stop()
    assert [line["seq"] for line in lines(tmp_path / "audit")] == [0, 1]


async def test_standard_output(capfd: pytest.CaptureFixture[str]):
    audit = AuditLog("stdout")
    await audit.start()
    await audit.write([change(1)])
    await audit.stop()
    assert orjson.loads(capfd.readouterr().out)["seq"] == 1
    print("still open")
    assert capfd.readouterr().out == "still open\n"


async def test_off_writes_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    audit = AuditLog("off")
    await audit.start()
    await audit.write([change()])
    audit.record({"who": "user:ann"})
    await audit.stop()
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["no/such/directory", "."])
async def test_a_path_that_cannot_be_written_is_an_error_that_names_the_setting(
    tmp_path: Path, where: str
):
    audit = AuditLog(str(tmp_path / where))
    with pytest.raises(
        InvalidSettings, match=r"AUDIT_LOG: got '.*', which cannot .*; takes stdout, off, or"
    ):
        await audit.start()
    await audit.stop()


async def test_a_pipe_that_nobody_reads_is_told_and_not_waited_for(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidSettings, match=r"AUDIT_LOG: got .* nobody reads it; takes"):
        await AuditLog(str(pipe)).start()


async def test_a_pipe_that_is_full_is_waited_for(tmp_path: Path):
    pipe = Pipe(tmp_path)
    audit = AuditLog(str(pipe.path))
    await audit.start()
    writing = asyncio.create_task(audit.write([change(n) for n in range(1000)]))
    await wait_until(pipe.is_full)
    os.close(pipe.probe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read))
    await writing
    await audit.stop()
    assert len(await reading) == 1000


async def test_a_write_that_fails_is_told_and_a_torn_line_gets_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = os.write
    room = 300

    def full_disk(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "no space left")
        written = real(descriptor, data[:room])
        room -= written
        return written

    audit = AuditLog(str(tmp_path / "audit"))
    await audit.start()
    monkeypatch.setattr("booking_worker.telemetry.audit.os.write", full_disk)
    batch = [change(n) for n in range(3)]
    with pytest.raises(OSError, match="no space left"):
        await audit.write(batch)
    monkeypatch.undo()
    await audit.write(batch)
    await audit.stop()
    text = (tmp_path / "audit").read_bytes().splitlines()
    assert orjson.loads(text[0])["seq"] == 0
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text[1])
    assert [orjson.loads(line)["seq"] for line in text[2:]] == [0, 1, 2]


async def test_records_are_written_soon_with_the_time_added(tmp_path: Path):
    path = tmp_path / "audit"
    audit = AuditLog(str(path))
    await audit.start()
    audit.record({"who": "user:eve", "why": "another user's item"})
    audit.record({"who": "user:mallory"})
    await wait_until(lambda: path.stat().st_size and len(lines(path)) == 2)
    first = lines(path)[0]
    assert list(first) == ["at", "at_ms", "who", "why"]
    audit.record({"who": "user:trudy"})
    await audit.stop()
    assert lines(path)[-1]["who"] == "user:trudy"


class Stalled:
    """A reader that takes nothing until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.writes = 0
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            self.writes += 1
            assert self.go.wait(10)
            return real(descriptor, data)

        monkeypatch.setattr("booking_worker.telemetry.audit.os.write", write)


async def test_a_stalled_reader_holds_up_no_one_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    audit = AuditLog(str(tmp_path / "audit"))
    await audit.start()
    stalled = Stalled(monkeypatch)
    writing = asyncio.create_task(audit.write([change()]))
    await wait_until(lambda: stalled.writes)
    for _ in range(3):
        await asyncio.sleep(0)  # the loop goes round
    assert not writing.done()
    stalled.go.set()
    await writing
    await audit.stop()


async def test_a_flood_of_records_is_given_up_and_counted_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("booking_worker.telemetry.audit._MAX_RECORDS_PENDING", 5)
    lost: list[int] = []
    audit = AuditLog(str(tmp_path / "audit"), lost.append)
    await audit.start()
    for number in range(8):
        audit.record({"number": number})
    await audit.stop()
    assert [line["number"] for line in lines(tmp_path / "audit")] == [0, 1, 2, 3, 4]
    assert sum(lost) == 3


async def test_records_that_cannot_be_written_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full_disk(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    lost: list[int] = []
    for count_lost in (lost.append, None):
        audit = AuditLog(str(tmp_path / "audit"), count_lost)
        await audit.start()
        with monkeypatch.context() as patch:
            patch.setattr("booking_worker.telemetry.audit.os.write", full_disk)
            audit.record({"number": 1})
            audit.record({"number": 2})
            await audit.stop()
    assert lost == [2]
