"""What the service takes when it does nothing: seconds to start, CPU, memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.report import Report, at_most, medians

ROUNDS: Final = 3
IDLE_SECONDS: Final = 10.0
MOST_START_SECONDS: Final = 2.0
MOST_CPU_PERCENT: Final = 3.0
MOST_MEGABYTES: Final = 120.0


def megabytes(pid: int) -> float:
    """What a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def one_round(directory: Path, seconds: float) -> dict[str, Any]:
    """Start it, leave it alone, and see what it used, and what its engine did."""
    with (
        processes.sandbox(directory, tickets=10) as peers,
        processes.service(directory, peers) as service,
    ):
        engine = service.engine_pid
        assert engine is not None  # noqa: S101 - it is embedded
        time.sleep(1.0)
        before = processes.cpu_seconds(service.process.pid), processes.cpu_seconds(engine)
        time.sleep(seconds)
        after = processes.cpu_seconds(service.process.pid), processes.cpu_seconds(engine)
        return {
            "start_seconds": round(service.start_seconds, 3),
            "idle_cpu_percent": round(100 * (after[0] - before[0]) / seconds, 2),
            "megabytes": round(megabytes(service.process.pid), 1),
            "engine_cpu_percent": round(100 * (after[1] - before[1]) / seconds, 2),
            "engine_megabytes": round(megabytes(engine), 1),
        }


def run(scale: float) -> Report:
    """See the module; ``scale`` shortens the idle time.

    Raises:
        BenchmarkError: there is no /proc to read CPU and memory from.
    """
    if not Path("/proc/self/stat").exists():
        raise processes.BenchmarkError("CPU and memory are read from /proc, which is Linux's")
    with processes.work_dir() as directory:
        found = [one_round(directory, max(1.0, IDLE_SECONDS * scale)) for _ in range(ROUNDS)]
    row = medians("service", found, tuple(found[0]))
    return Report(
        "service",
        [row],
        {
            "ratio": max(
                row["start_seconds"] / MOST_START_SECONDS,
                row["idle_cpu_percent"] / MOST_CPU_PERCENT,
                row["megabytes"] / MOST_MEGABYTES,
            )
        },
        [
            at_most("seconds to start, at most 2", row["start_seconds"], MOST_START_SECONDS),
            at_most(
                "percent of a core when idle, at most 3", row["idle_cpu_percent"], MOST_CPU_PERCENT
            ),
            at_most("MB without the engine, at most 120", row["megabytes"], MOST_MEGABYTES),
        ],
        ["ratio: the figure nearest to its limit, over that limit; medians of three starts"],
    )
