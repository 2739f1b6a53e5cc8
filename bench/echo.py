"""The reference: the service's own server, whose calls are parsed and answered with a constant.

    python -m bench.echo [--transport native|grpcio]

It prints its port on a line and serves until its standard input ends. Nothing but the engine
and what leads to it is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop
from google.protobuf.message import Message

from booking_worker.api.grpc_server import GrpcServer, Transport
from booking_worker.api.health import Health
from booking_worker.api.rpc import Calls, Context, Service, not_yet_streamed
from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.telemetry.metrics import Metrics

ITEM_ID: Final = "AAAAAAAAAAAA.echo"


def constant(answer: Message) -> Callable[[Message, Context], Awaitable[Message]]:
    """Answers any request with a message that is encoded anew each time, as a real one is."""

    async def give(_request: Message, _context: Context) -> Message:
        return answer

    return give


async def joined_all(
    request: pb.EnqueueBookingsRequest, _context: Context
) -> pb.EnqueueBookingsResponse:
    """As many constant answers as there are requests."""
    one = pb.EnqueueBookingResponse(success=True, queue_item_id=ITEM_ID, queue_position=50_000)
    return pb.EnqueueBookingsResponse(responses=[one] * len(request.requests))


def echo_service(metrics: Metrics) -> Service:
    """BookingWorkerService without a queue behind it."""
    calls = Calls(metrics)
    unary = calls.unary
    return Service(
        pb.DESCRIPTOR.services_by_name["BookingWorkerService"],
        {
            "EnqueueBooking": unary(
                pb.EnqueueBookingRequest,
                constant(
                    pb.EnqueueBookingResponse(
                        success=True,
                        queue_item_id=ITEM_ID,
                        queue_position=50_000,
                        estimated_wait_seconds=-1,
                        message="you are in the line",
                    )
                ),
            ),
            "EnqueueBookings": unary(pb.EnqueueBookingsRequest, joined_all),
            "GetQueuePosition": unary(
                pb.GetQueuePositionRequest,
                constant(
                    pb.GetQueuePositionResponse(
                        success=True,
                        position=50_000,
                        queue_length=100_000,
                        estimated_wait_seconds=-1,
                        status="waiting",
                    )
                ),
            ),
            "GetQueueStatus": unary(
                pb.GetQueueStatusRequest, constant(pb.GetQueueStatusResponse(success=True))
            ),
            "CancelQueueItem": unary(
                pb.CancelQueueItemRequest, constant(pb.CancelQueueItemResponse(success=True))
            ),
            "ConfirmPayment": unary(
                pb.ConfirmPaymentRequest, constant(pb.ConfirmPaymentResponse(success=True))
            ),
            "Health": unary(pb.HealthRequest, constant(pb.HealthResponse(status="healthy"))),
            "WatchQueueItem": not_yet_streamed("it is an echo"),
        },
        calls,
    )


async def serve(transport: Transport) -> None:
    """Serve on a free port until standard input ends."""
    metrics = Metrics()
    server = GrpcServer(
        [echo_service(metrics)], Health({}), metrics, 0, host="127.0.0.1", transport=transport
    )
    await server.start()
    # As the service does, so that it has no advantage of it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.echo", description=__doc__)
    parser.add_argument("--transport", choices=("auto", "native", "grpcio"), default="auto")
    uvloop.run(serve(parser.parse_args().transport))
