"""What the join script alone takes: a bare client, an engine that syncs before it answers.

    python -m bench.bare_join --data-dir DIR [--joins 100000] [--batch 100]

One call at a time, its arguments prepared; prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
from redis import Redis

from bench import requests
from booking_worker.engine.embedded import EmbeddedEngine
from booking_worker.queue import keys, scripts
from booking_worker.queue.line import pack_joins
from booking_worker.telemetry.logs import configure

LIMITS = {
    "max_size": 10_000_000,
    "places_per_user": 1,
    "queue_timeout_ms": 900_000,
    "result_ttl_ms": 86_400_000,
    "actor": "user",
}


def calls(event_id: str, joins: int, batch: int) -> list[list[Any]]:
    """The arguments of EVALSHA of every call."""
    script = scripts.load("join")
    named = keys.of_event(event_id)
    given = LIMITS | {"event_id": event_id}
    fixed = [
        "EVALSHA",
        script.sha,
        len(script.keys),
        *(named[key] for key in script.keys),
    ]
    prepared = []
    for start in range(0, joins, batch):
        numbers = range(start, min(start + batch, joins))
        asked = [requests.join(event_id, number) for number in numbers]
        prepared.append([*fixed, *script.argv(given | {"joins": pack_joins(asked)})])
    return prepared


def measure(socket: Path, joins: int, batch: int) -> dict[str, Any]:
    """Make all calls, one after another."""
    prepared = calls("bare", joins, batch)
    client = Redis(unix_socket_path=str(socket))
    client.script_load(scripts.load("join").text)
    evaluate: Callable[..., bytes] = client.execute_command
    times = []
    began = time.perf_counter()
    for arguments in prepared:
        start = time.perf_counter()
        answers = evaluate(*arguments)
        times.append(time.perf_counter() - start)
        if not all(isinstance(answer, int) for answer in msgpack.unpackb(answers)):
            raise RuntimeError(f"a join was refused: {msgpack.unpackb(answers)}")
    seconds = time.perf_counter() - began
    client.close()
    times.sort()
    return {
        "joins": joins,
        "seconds": round(seconds, 4),
        "per_second": round(joins / seconds, 1),
        "p50_ms": round(times[len(times) // 2] * 1000, 3),
        "p95_ms": round(times[len(times) * 95 // 100] * 1000, 3),
        "p99_ms": round(times[len(times) * 99 // 100] * 1000, 3),
    }


async def run(data_dir: Path, joins: int, batch: int) -> dict[str, Any]:
    """Measure on an engine of its own."""
    engine = EmbeddedEngine(data_dir, "always")
    await engine.start()
    try:
        return await asyncio.to_thread(measure, engine.socket, joins, batch)
    finally:
        await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.bare_join", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--joins", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=100)
    options = parser.parse_args()
    configure("warning", "console")
    result = asyncio.run(run(options.data_dir, options.joins, options.batch))
    json.dump(result, sys.stdout)
