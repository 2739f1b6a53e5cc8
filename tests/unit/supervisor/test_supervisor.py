"""What it does with real processes is in tests/acceptance/test_processes.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from booking_worker.api.listening import bind, every_host
from booking_worker.config import Settings
from booking_worker.domain.errors import InvalidSettings
from booking_worker.engine.data_dir import DataDir
from booking_worker.supervisor.supervisor import Supervisor, shares


@pytest.mark.parametrize(
    "slots, processes, each",
    [(10, 2, [5, 5]), (10, 3, [4, 3, 3]), (3, 3, [1, 1, 1]), (7, 1, [7])],
)
def test_the_workers_are_shared(slots: int, processes: int, each: list[int]):
    assert shares(slots, processes) == each


def settings(directory: Path, **given: object) -> Settings:
    ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}
    return Settings(_env_file=None, **{**ports, "data_dir": directory, **given})


def test_fewer_workers_than_processes_are_an_error_that_names_the_setting(tmp_path: Path):
    with pytest.raises(InvalidSettings, match=r"WORKER_POOL_SIZE: got 2, takes at least 3 with"):
        Supervisor(settings(tmp_path, worker_pool_size=2), 3)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with SO_REUSEPORT"])
@pytest.mark.parametrize("name", ["grpc_port", "http_port", "metrics_port"])
async def test_a_port_of_another_is_refused_and_nothing_is_left(
    name: str, shared: bool, tmp_path: Path
):
    host = "0.0.0.0" if name == "metrics_port" else every_host()
    with bind(host, 0, shared=shared) as theirs:
        port = theirs.getsockname()[1]
        supervisor = Supervisor(settings(tmp_path, **{name: port}), 2)
        with pytest.raises(InvalidSettings, match=rf"{name.upper()}: got {port}, which cannot be"):
            await supervisor.start()
    assert supervisor.pids == []
    assert not DataDir(tmp_path).server_is_alive()
    await supervisor.stop()
