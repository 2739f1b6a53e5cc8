"""Stand-in peers for benchmarks: they answer at once, and count.

    python -m bench.sandbox --ledger FILE [--tickets N]

It prints its endpoints (Booking, Ticket, Realtime) as a JSON list, then answers a line each to
``told TYPE`` (messages of this type so far) and ``tickets EVENT N``, until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import uvloop

from booking_worker.sandbox.server import Sandbox


async def serve(ledger: Path, tickets: int) -> None:
    """Serve until standard input ends."""
    sandbox = Sandbox(ledger, default_tickets=tickets, reservations=False)
    await sandbox.start()
    _say(json.dumps([sandbox.booking_endpoint, sandbox.ticket_endpoint, sandbox.realtime_endpoint]))
    while question := (await asyncio.to_thread(sys.stdin.readline)).split():
        if question[0] == "told":
            _say(str(sandbox.notices.counts[question[1]]))
        else:
            _, event_id, number = question
            sandbox.ledger.set_tickets(event_id, int(number))
            _say("done")
    await sandbox.stop()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.sandbox", description=__doc__)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--tickets", type=int, default=10)
    options = parser.parse_args()
    uvloop.run(serve(options.ledger, options.tickets))
