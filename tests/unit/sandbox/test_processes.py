from __future__ import annotations

import os
from pathlib import Path

import pytest

from booking_worker.sandbox.processes import BookingWorkerProcess, ProcessFailed
from tests.support.processes import child_environment

SANDBOX = ["sandbox", "--booking-port", "0", "--ticket-port", "0", "--realtime-port", "0"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return child_environment(tmp_path_factory)


async def test_it_starts_is_killed_starts_again_and_stops(
    tmp_path: Path, environment: dict[str, str]
):
    process = BookingWorkerProcess("sandbox", SANDBOX, environment, tmp_path)
    await process.stop()
    assert process.pid is None
    facts = await process.start("--ledger", str(tmp_path / "ledger.db"))
    first = process.pid
    assert facts["pid"] == first
    process.kill()
    assert first is not None
    assert not is_alive(first)
    assert not process.runs
    facts = await process.start("--ledger", str(tmp_path / "ledger.db"))
    second = process.pid
    assert second == facts["pid"] != first
    assert os.getsid(second) != os.getsid(0)
    await process.stop()
    await process.stop()
    assert second is not None
    assert not is_alive(second)
    assert process.output.read_text().count("The sandbox is ready") == 2


async def test_one_that_does_not_start_says_why(tmp_path: Path, environment: dict[str, str]):
    process = BookingWorkerProcess("odd", ["sandbox", "--no-such-option"], environment, tmp_path)
    with pytest.raises(ProcessFailed, match="odd ended while it started") as failed:
        await process.start()
    assert "--no-such-option" in str(failed.value)
    with pytest.raises(ProcessFailed, match="ended by itself with 2"):
        await process.stop()
