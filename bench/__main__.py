"""``python -m bench NAME [--json]``; scripts/bench.sh calls it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Final

from bench.processes import BenchmarkError
from booking_worker.telemetry.logs import configure

NAMES: Final = {
    "joins": "EnqueueBooking and EnqueueBookings, beside an echo and the bare join script",
    "positions": "GetQueuePosition while 100,000 wait, beside an echo",
    "holds": "from waiting to held with peers that answer at once, beside the bare calls",
    "line": "cost of each operation at 1,000 to 1,000,000 waiting, and the engine's memory",
    "service": "time to start, idle CPU and memory",
    "scale": "joins with 1 and 2 processes at 0 to 1,000,000 waiting: the engine's CPU and memory",
}


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="bench.sh",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Each benchmark prints its reference beside it, from the same run:\n\n"
        + "\n".join(f"  {name:10} {what}" for name, what in NAMES.items()),
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", nargs="?")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="a share of the full size, such as 0.1"
    )
    options = parser.parse_args()
    if options.name is None:
        parser.print_help()
        return 0
    _two_cores()
    configure("warning", "console")
    try:
        report = importlib.import_module(f"bench.{options.name}").run(options.scale)
    except BenchmarkError as error:
        sys.stderr.write(f"{options.name}: {error}\n")
        return 1
    if options.json:
        sys.stdout.write(report.as_json() + "\n")
    else:
        report.print_table()
    return 0


def _two_cores() -> None:
    """Server, engine and load share two cores, however many there are."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


if __name__ == "__main__":
    sys.exit(main())
