"""The processes of a sale, real ones: what is killed comes back as it was, and nothing stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from booking_worker.engine.data_dir import DataDir
from booking_worker.proto import booking_worker_pb2, booking_worker_pb2_grpc
from booking_worker.proto.sandbox_pb2 import Faults
from booking_worker.sandbox.processes import ProcessFailed
from booking_worker.sandbox.stage import Stage
from tests.support.processes import child_environment, needs_proc, processes_in
from tests.support.wait import wait_until


class Stages:
    """Makes stages in one directory, and ends them."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._made: list[Stage] = []

    def __call__(self, **settings: str) -> Stage:
        stage = Stage(self._directory, settings, self._environment, tickets=5)
        self._made.append(stage)
        return stage

    def end(self) -> None:
        for stage in self._made:
            stage.end()


@pytest.fixture
def stages(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    stages = Stages(tmp_path, child_environment(tmp_path_factory))
    yield stages
    stages.end()


async def join(stage: Stage, user_id: str) -> bool:
    async with grpc.aio.insecure_channel(stage.endpoint) as channel:
        stub = booking_worker_pb2_grpc.BookingWorkerServiceStub(channel)
        answer = await stub.EnqueueBooking(
            booking_worker_pb2.EnqueueBookingRequest(
                user_id=user_id, event_id="demo", seat_count=1
            ),
            wait_for_ready=True,
            timeout=10,
        )
    return answer.success


async def held(stage: Stage) -> int | None:
    books = await stage.books("demo")
    return None if books is None else books["held_seats"]


@needs_proc
async def test_what_is_killed_comes_back_as_it_was_and_nothing_stays(
    tmp_path: Path, stages: Stages
):
    stage = stages(CAPACITY_REFRESH_SECONDS="0.2")
    await stage.start()
    endpoint = stage.endpoint
    assert await join(stage, "ann")
    await wait_until(lambda: _is(held(stage), 1))

    stage.kill_service()
    assert await stage.books("demo") is None
    assert DataDir(tmp_path / "data").server_is_alive()
    stage.kill_sandbox()
    await stage.start_sandbox()
    stage.kill_engine()
    await stage.start_service()
    assert stage.endpoint == endpoint

    async def answers() -> bool:
        return await held(stage) is not None

    await wait_until(answers)  # a connection is not made anew at once
    assert await held(stage) == 1

    await stage.set_faults("", Faults())
    assert await join(stage, "bob")
    await wait_until(lambda: _is(held(stage), 2))
    assert (await stage.audit()).held == 2
    await stage.stop()
    await stage.stop()
    assert processes_in(tmp_path) == []
    assert '"to":"awaiting_payment"' in stage.audit_log.read_text()


@needs_proc
async def test_the_end_leaves_nothing_of_what_ran_or_was_left_behind(
    tmp_path: Path, stages: Stages
):
    stage = stages()
    await stage.start()
    stage.kill_service()
    assert DataDir(tmp_path / "data").server_is_alive()
    stage.end()
    stage.end()
    assert processes_in(tmp_path) == []


@needs_proc
async def test_a_service_that_does_not_start_takes_the_sandbox_with_it(
    tmp_path: Path, stages: Stages
):
    stage = stages(LOG_LEVEL="loud")
    with pytest.raises(ProcessFailed, match="LOG_LEVEL: got 'loud'"):
        await stage.start()
    assert processes_in(tmp_path) == []


async def _is(asked: object, expected: object) -> bool:
    return await asked == expected  # type: ignore[misc]
