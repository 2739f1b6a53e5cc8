"""Fault 24: fuzzed messages, unknown fields, braces and NUL in ids, 2^63, NaN, deep JSON."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from booking_worker.domain.item_id import is_plain_id
from booking_worker.proto import admin_pb2, booking_worker_pb2
from booking_worker.queue import keys
from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop

CALLS: Final = 1_500
METHODS: Final = [
    method
    for file in (booking_worker_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.server_streaming
]
EXPECTED: Final = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
TEXTS: Final = (
    *("", " ", "ann", EVENT, "a b", "\0", "ann\0", "a\nb", "x" * 128, "x" * 129, "x" * 100_000),
    *("{", "}", "{}", "a{b}c", "}{", "{concert}", "concert}:{other", "~", "~~~~", "AAAAAAAAAAAA."),
    *("AAAAAAAAAAAA.concert", "AAAAAAAAAAAA.~", "AAAAAAAAAAAA.~fQ", "AAAAAAAAAAAA.{x}", "*", "?"),
    *("ünïcödé", "日本", "🎫", "\u202e", "\u200b", "\ufeff", "é", "EUR", "NaN", "-1", "1e999"),
    *('{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 50_000, "../../etc/passwd", "%s%n", "'; DROP"),
)
NUMBERS: Final = (0, 1, 2, -1, 10, 11, 2**31 - 1, -(2**31))
FLOATS: Final = (0.0, -0.0, 1.5, -1.0, float("nan"), float("inf"), -float("inf"), 1e308, 2.0**63)
SENSIBLE: Final = {
    "user_id": "ann",
    "event_id": EVENT,
    "seat_count": 1,
    "total_amount": 10.0,
    "currency": "EUR",
    "payment_reference": "payment-1",
    "reason": "no",
}
UNKNOWN_FIELDS: Final = (b"\xfa\x3e\x03abc", b"\xf8\x3e\x7f", b"\xfd\x3e\x01\x02\x03\x04")


class Fuzz:
    """Messages that are right but for some fields; the same seed makes the same."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def method(self) -> MethodDescriptor:
        return self._rng.choice(METHODS)

    def request(self, method: MethodDescriptor) -> bytes:
        message = GetMessageClass(method.input_type)()
        self._fill(message, method.input_type)
        unknown = self._rng.choice(UNKNOWN_FIELDS) if self._rng.random() < 0.3 else b""
        return message.SerializeToString() + unknown

    def _fill(self, message: Message, descriptor: Descriptor) -> None:
        for field in descriptor.fields:
            chance = self._rng.random()
            if chance < 0.7 and field.name in SENSIBLE:
                setattr(message, field.name, SENSIBLE[field.name])
                continue
            if chance < 0.2:
                continue
            if field.is_repeated and self._rng.random() < 0.6:
                continue
            if field.message_type and field.message_type.GetOptions().map_entry:
                for _ in range(self._rng.choice((1, 3, 40))):
                    getattr(message, field.name)[self._text()] = self._text()
            elif field.is_repeated:
                self._fill_list(getattr(message, field.name), field)
            elif field.message_type:
                self._fill(getattr(message, field.name), field.message_type)
            else:
                setattr(message, field.name, self._scalar(field))

    def _fill_list(self, values: Any, field: FieldDescriptor) -> None:
        for _ in range(self._rng.choice((0, 1, 2, 12))):
            if field.message_type:
                self._fill(values.add(), field.message_type)
            else:
                values.append(self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._text()
        if field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
            return self._rng.choice(FLOATS)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._rng.random() < 0.5
        return self._rng.choice((*NUMBERS, 2**63 - 1) if "64" in _name(field) else NUMBERS)

    def _text(self) -> str:
        return self._rng.choice(TEXTS)


def _name(field: FieldDescriptor) -> str:
    wide = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
    return "int64" if field.cpp_type in wide else "int32"


async def fuzzed(replica: Replica, calls: int) -> set[grpc.StatusCode]:
    """The codes of all answers."""
    fuzz = Fuzz(seed=24)
    gate = asyncio.Semaphore(20)

    async def call() -> grpc.StatusCode:
        method = fuzz.method()
        path = f"/{method.containing_service.full_name}/{method.name}"
        async with gate:
            try:
                await replica.channel.unary_unary(path)(fuzz.request(method), timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    return set(await asyncio.gather(*(call() for _ in range(calls))))


async def keys_outside_their_slot(shop: Shop) -> list[str]:
    """Keys that are of no event by the rule of Redis Cluster: what is in the first braces."""
    stray = []
    async for key in shop.client.scan_iter(count=1000):
        name = key.decode()
        if name in {keys.EVENTS, keys.LAYOUT, keys.WORKERS, keys.SWEEP_LOCK}:
            continue
        start = name.find("{")
        event_id = name[start + 1 : name.find("}", start)] if start >= 0 else ""
        whole = [prefix % event_id for prefix in keys._EVENT_KEYS.values()]
        if not is_plain_id(event_id) or not name.startswith(tuple(whole)):
            stray.append(name)
    return stray


async def test_it_is_the_callers_mistake_and_nobody_elses(shop: Shop):
    replica = await shop.open()
    codes = await fuzzed(replica, CALLS)
    assert codes <= EXPECTED
    assert {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    } <= codes
    assert await keys_outside_their_slot(shop) == []
    assert replica.is_alive
    assert not replica.logged("Traceback")
    item_id = await shop.join("a-good-buyer", event_id="another-concert")
    assert item_id.endswith(".another-concert")


async def test_keys_leave_their_slot_without_the_check_of_ids(shop: Shop):
    replica = await shop.open("the check of ids")
    await fuzzed(replica, 200)
    assert await keys_outside_their_slot(shop)
