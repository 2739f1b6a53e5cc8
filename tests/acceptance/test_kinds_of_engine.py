"""A sale by two replicas on a Cluster, and on a master that is killed in the midst of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from booking_worker.sandbox import demo
from booking_worker.sandbox.demo import Sale, hold_sale
from booking_worker.sandbox.report import Report
from booking_worker.sandbox.stage import Stage
from tests.acceptance.test_two_replicas import short_directory
from tests.support.engines import settings_of
from tests.support.processes import child_environment, needs_proc, processes_in
from tests.support.servers import Sentinels, cluster, sentinel
from tests.support.wait import wait_until

pytestmark = [needs_proc, pytest.mark.timeout(120)]


class MasterDies:
    """In the place of demo.Chaos: kills the master once, when people wait."""

    def __init__(self, stage: Stage, made: Sentinels) -> None:
        self._stage = stage
        self._made = made
        self.blows: Counter[str] = Counter()

    async def run(self) -> None:
        await wait_until(self._people_wait, timeout=30)
        master = await self._made.master()
        await master.kill()
        self.blows["master killed"] += 1
        await self._made.failed_over(master)
        await master.start()

    def stop(self) -> None:
        """It stops by itself."""

    async def _people_wait(self) -> bool:
        books = await self._stage.books("demo")
        return books is not None and books["waiting"] > 0


async def hold(
    settings: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    *,
    chaos: bool = False,
) -> Report:
    async def start_engine(stage: Stage) -> None:
        for service in stage._services:
            service.environment.update(settings)

    monkeypatch.setattr(Stage, "start_engine", start_engine)
    sale = Sale(buyers=120, tickets=15, seed=1, replicas=2, chaos=chaos)
    async with short_directory() as directory:
        report = await hold_sale(sale, directory, environment, lambda _: None)
        assert processes_in(directory) == []
    assert report.broken == ()
    assert report.joined == 120
    assert report.sold == 15
    return report


async def test_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
):
    async with cluster() as made:
        await hold(settings_of(made), monkeypatch, child_environment(tmp_path_factory))


async def test_while_the_master_dies(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
):
    async with sentinel() as made:
        await made.in_step()
        monkeypatch.setattr(demo, "Chaos", lambda stage, _seed: MasterDies(stage, made))
        settings = {**settings_of(made), "REDIS_WAIT_REPLICAS": "1"}
        environment = child_environment(tmp_path_factory)
        report = await hold(settings, monkeypatch, environment, chaos=True)
    assert report.chaos == {"master killed": 1}
