"""The load: prepared unary gRPC calls over plain sockets, from one thread without asyncio.

    python -m bench.load --port 50059 --path /booking_worker.v1.BookingWorkerService/Health \
        --messages FILE [--connections 20] [--streams 20] [--answers FILE]

It sends each message of FILE once and prints one JSON object. A call counts as a success only
when its trailers say ``grpc-status: 0`` and a message came before them.
"""

from __future__ import annotations

import argparse
import gc
import json
import selectors
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.h2 import OK, Connection

_STUCK_SECONDS: Final = 30.0
_LENGTH: Final = struct.Struct(">I")


def write_messages(path: Path, messages: Iterable[bytes]) -> None:
    """Keep messages in a file, each behind its length."""
    path.write_bytes(b"".join(_LENGTH.pack(len(message)) + message for message in messages))


def read_messages(path: Path) -> list[bytes]:
    """The messages that :func:`write_messages` kept."""
    data = path.read_bytes()
    messages = []
    at = 0
    while at < len(data):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0]
        messages.append(data[start:at])
    return messages


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of an ordered sequence does not exceed; NaN for none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def run(connections: Sequence[Connection]) -> dict[str, Any]:
    """Make all calls of all connections and say how it went.

    Raises:
        TimeoutError: nothing came for 30 s.
    """
    selector = selectors.DefaultSelector()
    read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
    gc.collect()
    gc.disable()
    clock = time.perf_counter
    cpu = time.process_time()
    began = clock()
    for connection in connections:
        selector.register(connection.socket, read, connection)
        connection.send(began)
    open_ones = sum(not connection.is_done for connection in connections)
    while open_ones:
        events = selector.select(_STUCK_SECONDS)
        if not events:
            raise TimeoutError(f"nothing came for {_STUCK_SECONDS} s")
        for key, _ in events:
            connection = key.data
            now = clock()
            connection.receive(now)
            connection.send(now)
            if connection.is_done:
                selector.unregister(connection.socket)
                open_ones -= 1
                continue
            wanted = read | write if connection.wants_to_write else read
            if wanted != key.events:
                selector.modify(connection.socket, wanted, connection)
    seconds = clock() - began
    cpu = time.process_time() - cpu
    gc.enable()
    selector.close()
    return summary(connections, seconds, cpu)


def summary(connections: Sequence[Connection], seconds: float, cpu: float) -> dict[str, Any]:
    """What is printed: times of calls in milliseconds, the load's own cost per call beside it."""
    latencies = sorted(time for connection in connections for time in connection.latencies)
    statuses: Counter[str] = Counter()
    for connection in connections:
        statuses.update(connection.statuses)
    calls = statuses.total()
    return {
        "calls": calls,
        "ok": statuses.pop(OK, 0),
        "errors": dict(statuses.most_common(10)),
        "seconds": round(seconds, 4),
        "per_second": round(calls / seconds, 1),
        "p50_ms": round(percentile(latencies, 0.50) * 1000, 3),
        "p95_ms": round(percentile(latencies, 0.95) * 1000, 3),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 3),
        "load_us": round(cpu / max(calls, 1) * 1e6, 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True, help="/package.Service/Method")
    parser.add_argument("--messages", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--streams", type=int, default=20, help="calls under way per connection")
    parser.add_argument("--metadata", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--answers", type=Path, help="keep the messages of the answers here")
    options = parser.parse_args(arguments)
    messages = read_messages(options.messages)
    metadata = dict(pair.split("=", 1) for pair in options.metadata)
    number = min(options.connections, len(messages))
    connections = [
        Connection(
            (options.host, options.port),
            options.path,
            messages[at::number],
            options.streams,
            metadata,
        )
        for at in range(number)
    ]
    result = run(connections)
    for connection in connections:
        connection.close()
    if options.answers:
        answers = [b""] * len(messages)
        for at, connection in enumerate(connections):
            answers[at::number] = [answer[5:] for answer in connection.answers]
        write_messages(options.answers, answers)
    json.dump(result, sys.stdout)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
