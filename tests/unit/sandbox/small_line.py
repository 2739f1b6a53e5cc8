"""A very small queue behind real gRPC: just enough for buyers to live in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from typing_extensions import override

from booking_worker.proto import booking_worker_pb2 as pb
from booking_worker.proto import booking_worker_pb2_grpc

_FINAL = {"completed", "expired", "cancelled", "sold_out"}


@dataclass
class Item:
    item_id: str
    user_id: str
    status: str = "waiting"
    pay_by: float = 0.0


@dataclass
class SmallLine(booking_worker_pb2_grpc.BookingWorkerServiceServicer):
    """Admits in order while it has tickets; holds last ``hold_seconds``."""

    tickets: int = 1000
    hold_seconds: float = 0.3
    admits: bool = True
    items: dict[str, Item] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    one_place_each: bool = True
    calls: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)
    failing: dict[str, list[grpc.StatusCode]] = field(default_factory=dict)
    """Codes that the next calls of a method end with."""
    lose_answers: bool = False
    """Codes of ``failing`` are answered after the work was done, not instead of it."""

    @override
    async def EnqueueBooking(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        for key, value in context.invocation_metadata() or ():
            if key == "idempotency-key":
                self.keys.append(str(value))
        fails = await self._begin("EnqueueBooking", context)
        known = self.places.get(request.user_id)
        again = known is not None and self.one_place_each
        again = again and self.items[str(known)].status not in _FINAL
        if not again:
            known = f"item-{len(self.items)}"
            self.items[known] = Item(known, request.user_id)
            self.places[request.user_id] = known
        await self._end(fails, context)
        position = self._position(str(known))
        return pb.EnqueueBookingResponse(
            success=True,
            queue_item_id=known,
            queue_position=position,
            estimated_wait_seconds=-1,
            already_queued=again,
        )

    @override
    async def GetQueuePosition(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        fails = await self._begin("GetQueuePosition", context)
        item = await self._item(request, context)
        await self._end(fails, context)
        held = item.status in {"awaiting_payment", "completed"}
        return pb.GetQueuePositionResponse(
            success=True,
            position=self._position(item.item_id),
            estimated_wait_seconds=0,
            status=item.status,
            booking_id=f"bk-{item.item_id}" if held else "",
            pay_by_unix_ms=int(item.pay_by * 1000) if item.status == "awaiting_payment" else 0,
        )

    @override
    async def ConfirmPayment(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        fails = await self._begin("ConfirmPayment", context)
        item = await self._item(request, context)
        if item.status not in {"awaiting_payment", "completed"}:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"it is {item.status}")
        item.status = "completed"
        await self._end(fails, context)
        return pb.ConfirmPaymentResponse(
            success=True, status="completed", booking_reference=f"R-{item.item_id}"
        )

    @override
    async def CancelQueueItem(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        fails = await self._begin("CancelQueueItem", context)
        item = await self._item(request, context)
        if item.status in _FINAL - {"cancelled"}:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"it is {item.status}")
        item.status = "cancelled"
        await self._end(fails, context)
        return pb.CancelQueueItemResponse(success=True)

    async def _begin(
        self, method: str, context: grpc.aio.ServicerContext
    ) -> grpc.StatusCode | None:
        self.calls[method] += 1
        codes = self.failing.get(method)
        code = codes.pop(0) if codes else None
        if code is not None and not self.lose_answers:
            await context.abort(code, "told to fail")
        return code

    async def _end(self, code: grpc.StatusCode | None, context: grpc.aio.ServicerContext) -> None:
        self._work()
        if code is not None:
            await context.abort(code, "the answer was lost")

    async def _item(self, request: Any, context: grpc.aio.ServicerContext) -> Item:
        self._work()
        item = self.items.get(request.queue_item_id)
        if item is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such item")
        assert item is not None
        if item.user_id != request.user_id:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
        return item

    def _position(self, item_id: str) -> int:
        waiting = [item.item_id for item in self.items.values() if item.status == "waiting"]
        return waiting.index(item_id) + 1 if item_id in waiting else 0

    def _work(self) -> None:
        now = time.time()
        taken = 0
        for item in self.items.values():
            if item.status == "awaiting_payment" and item.pay_by <= now:
                item.status = "expired"
            taken += item.status in {"awaiting_payment", "completed"}
        sold = sum(item.status == "completed" for item in self.items.values())
        for item in self.items.values():
            if item.status != "waiting" or not self.admits:
                continue
            if sold == self.tickets:
                item.status = "sold_out"
            elif taken < self.tickets:
                item.status, item.pay_by = "awaiting_payment", now + self.hold_seconds
                taken += 1


@asynccontextmanager
async def serve(line: SmallLine, port: int = 0) -> AsyncIterator[str]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    booking_worker_pb2_grpc.add_BookingWorkerServiceServicer_to_server(line, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(0)
