"""A whole sale by the command that a newcomer runs first, with all of its real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from booking_worker.sandbox.demo import Moment, Sale, hold_sale
from tests.support.processes import child_environment, needs_proc, processes_in
from tests.support.wait import wait_until

STATUSES = ("completed", "expired", "cancelled", "sold_out", "rejected", "failed")


class Demo:
    """``booking-worker demo`` in a process of its own, whose temporary files are in one place."""

    def __init__(self, directory: Path, environment: dict[str, str], *options: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "booking_worker", "demo", *options],
            cwd=directory,
            env={**environment, "TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def report(self) -> dict[str, Any]:
        """What it tells with --json, once it has ended well."""
        out, err = self.process.communicate(timeout=55)
        assert self.process.returncode == 0, f"{out}\n{err}\n{self.output()}"
        report: dict[str, Any] = json.loads(out)
        return report

    def output(self) -> str:
        """What its processes said, where it was kept."""
        logs = self.directory.glob("booking-worker-demo-*/*.log")
        return "\n".join(f"--- {path}\n{path.read_text()[-4000:]}" for path in logs)

    def end(self) -> None:
        """Leave nothing of it, whatever became of the test."""
        self.process.kill()
        self.process.wait()
        for pid in processes_in(self.directory):
            os.kill(pid, signal.SIGKILL)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Demos:
    """Starts demos in one directory, and ends them."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self._environment = environment
        self._started: list[Demo] = []

    def __call__(self, *options: str) -> Demo:
        demo = Demo(self.directory, self._environment, *options)
        self._started.append(demo)
        return demo

    def end(self) -> None:
        for demo in self._started:
            demo.end()

    @property
    def left_behind(self) -> list[str]:
        """What lies where temporary files go, and is not the gRPC server's own."""
        return [
            path.name
            for path in self.directory.iterdir()
            if not path.name.startswith("pygrpc-native-")
        ]


@pytest.fixture
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demos]:
    # Short, or its sockets would have to be elsewhere.
    with TemporaryDirectory(prefix="bw-", dir="/tmp") as directory:
        demos = Demos(Path(directory), child_environment(tmp_path_factory))
        yield demos
        demos.end()


@needs_proc
@pytest.mark.timeout(60)
@pytest.mark.parametrize("chaos", [[], ["--chaos"]], ids=["calm", "chaos"])
def test_a_whole_sale_keeps_every_promise(demos: Demos, chaos: list[str]):
    report = demos("--buyers=200", "--tickets=20", "--seed=1", "--json", *chaos).report()
    assert report["broken"] == []
    promises = ("oversold", "lost", "duplicate_bookings", "order_inversions")
    assert [report[name] for name in promises] == [0, 0, 0, 0]
    assert report["joined"] == report["buyers"] == 200
    assert sum(report[status] for status in STATUSES) == report["joined"]
    assert report["sold"] == report["tickets"] == 20
    assert report["completed"] >= 10
    assert report["sold_out"] >= 100
    if chaos:
        assert report["chaos"]["service_killed"] >= 1
    assert demos.left_behind == []
    assert processes_in(demos.directory) == []


@needs_proc
@pytest.mark.timeout(60)
def test_a_sale_by_several_replicas_keeps_every_promise(demos: Demos):
    report = demos(
        "--buyers=200", "--tickets=20", "--seed=1", "--json", "--replicas=3", "--chaos"
    ).report()
    assert report["broken"] == []
    assert report["joined"] == report["buyers"] == 200
    assert sum(report[status] for status in STATUSES) == report["joined"]
    assert report["chaos"]["service_killed"] >= 1
    assert demos.left_behind == []
    assert processes_in(demos.directory) == []


@needs_proc
@pytest.mark.timeout(60)
async def test_ctrl_c_ends_all_that_it_started(demos: Demos):
    demo = demos("--buyers=50", "--tickets=5", "--chaos")
    assert demo.process.stdout is not None
    while "selling" not in demo.process.stdout.readline():
        assert demo.process.poll() is None
    assert await wait_until(lambda: set(processes_in(demos.directory)) - {demo.process.pid})
    demo.process.send_signal(signal.SIGINT)
    await wait_until(lambda: demo.process.poll() is not None, timeout=20)
    assert demo.process.returncode == 128 + signal.SIGINT
    assert processes_in(demos.directory) == []
    assert demos.left_behind == []


@pytest.mark.timeout(60)
async def test_a_forged_trace_of_a_real_sale_is_found_out(
    demos: Demos, tmp_path_factory: pytest.TempPathFactory
):
    """The negative control: the same sale, but for an item that was let in before its turn."""
    directory = demos.directory / "sale"
    directory.mkdir()

    def forge(moment: Moment) -> None:
        if moment.phase == "auditing":
            with (directory / "audit.jsonl").open("a") as log:
                log.writelines(forged(at) for at in range(1, len(PATH)))

    environment = child_environment(tmp_path_factory)
    report = await hold_sale(Sale(buyers=30, tickets=5), directory, environment, forge)
    assert report.order_inversions == 1
    assert report.oversold > 0
    assert not report.kept
    assert processes_in(demos.directory) == []


PATH = ("", "waiting", "processing", "awaiting_payment", "releasing", "expired")


def forged(at: int) -> str:
    """The line that takes the forged item to that step of its path."""
    line = {
        "at": "",
        "at_ms": at,
        "item_id": "forged",
        "event_id": "demo",
        "user_id": "forger",
        "from": PATH[at - 1],
        "to": PATH[at],
        "seats": 50,
        "seq": 0,
        "booking_id": "",
        "change_id": f"{10**15}-0-{at}",
    }
    return json.dumps(line, separators=(",", ":")) + "\n"
