"""What the two calls of a hold take alone: CreateBooking, then the message to the user.

    python -m bench.bare_calls --booking HOST:PORT --realtime HOST:PORT [--items N] [--slots N]

As many at a time as the service has slots; prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from bench import requests
from booking_worker.peers.channel import open_channel
from booking_worker.proto import booking_pb2, booking_pb2_grpc, realtime_pb2, realtime_pb2_grpc


async def work(
    numbers: Iterator[int],
    booking: Any,
    realtime: Any,
) -> None:
    """One slot: item after item until there are no more."""
    for number in numbers:
        user_id = requests.user(number)
        answer = await booking.CreateBooking(
            booking_pb2.CreateBookingRequest(
                user_id=user_id,
                event_id="bare",
                ticket_quantity=2,
                metadata={
                    **requests.metadata(number),
                    "total_amount": "119.80",
                    "currency": "EUR",
                },
                idempotency_key=f"bare-{number}",
            ),
            timeout=5,
        )
        if not answer.success:
            raise RuntimeError(answer.message)
        payload = {
            "event_id": "bare",
            "queue_item_id": f"bare-{number}",
            "booking_id": answer.booking.id,
        }
        await realtime.SendToUser(
            realtime_pb2.SendToUserRequest(
                user_id=user_id,
                event_type="booking:awaiting_payment",
                payload=json.dumps({"type": "booking:awaiting_payment", "payload": payload}),
            ),
            timeout=5,
        )


async def run(booking: str, realtime: str, items: int, slots: int) -> dict[str, float]:
    """All items, through so many slots."""
    async with open_channel(booking) as to_booking, open_channel(realtime) as to_realtime:
        stubs = (
            booking_pb2_grpc.BookingServiceStub(to_booking),
            realtime_pb2_grpc.RealtimeServiceStub(to_realtime),
        )
        numbers = iter(range(items))
        began = time.perf_counter()
        await asyncio.gather(*(work(numbers, *stubs) for _ in range(slots)))
        seconds = time.perf_counter() - began
    return {"items": items, "seconds": round(seconds, 3), "per_second": round(items / seconds, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.bare_calls", description=__doc__)
    parser.add_argument("--booking", required=True)
    parser.add_argument("--realtime", required=True)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--slots", type=int, default=100)
    given = parser.parse_args()
    json.dump(uvloop.run(run(given.booking, given.realtime, given.items, given.slots)), sys.stdout)
