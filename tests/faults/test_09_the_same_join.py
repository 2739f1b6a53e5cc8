"""Fault 9: the same join many times: at once, on two replicas, after a timeout, after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import grpc.aio
import pytest

from tests.support.replica import Replica
from tests.support.shop import EVENT, Shop

TIMES = 100


async def joins_at_once(
    shop: Shop, user_id: str, key: str, replicas: Sequence[Replica], times: int = TIMES
) -> set[str]:
    """The places that one user is told, who joins many times at once on all replicas in turns."""
    places = await asyncio.gather(
        *(
            shop.join(user_id, key=key, via=replicas[number % len(replicas)])
            for number in range(times)
        )
    )
    return set(places)


@pytest.mark.parametrize("key", ["", "a-key"], ids=["by user", "by idempotency key"])
async def test_it_is_one_item_with_one_answer(shop: Shop, key: str):
    replicas = [await shop.open(), await shop.open()]
    (item_id,) = await joins_at_once(shop, "ann", key, replicas)
    replicas[0].freeze()
    with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE"):
        await shop.join("bob", key=key, via=replicas[0], timeout=0.2)
    replicas[0].thaw()
    (other,) = await joins_at_once(shop, "bob", key, replicas, 2)
    for replica in replicas:
        await replica.kill()
    again = await shop.open()
    assert await shop.join("ann", key=key, via=again) == item_id
    assert await shop.join("bob", key=key, via=again) == other
    assert (await shop.queue.status(EVENT)).joined == 2
    await shop.sell()
    if key:  # By its key the answer is the same even now; by the user alone it is a new place.
        assert await shop.join("ann", key=key, via=again) == item_id
    await shop.kept()


async def test_a_user_has_two_places_without_the_guard(shop: Shop):
    replicas = [await shop.open("one place a user"), await shop.open("one place a user")]
    assert len(await joins_at_once(shop, "ann", "", replicas)) > 1
    await shop.sell()
    assert any("one place each" in one for one in await shop.broken())


async def refused_field(shop: Shop) -> str:
    """What the error names when the same key comes with another request; nothing, for none."""
    await shop.join("ann", key="a-key", seats=1)
    try:
        await shop.join("ann", key="a-key", seats=2)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return (error.details() or "").partition(":")[0]
    return ""


async def test_the_same_key_with_another_request_is_an_error(shop: Shop):
    await shop.open()
    assert await refused_field(shop) == "idempotency-key"


async def test_the_same_key_takes_any_request_without_the_digest(shop: Shop):
    await shop.open("the request's digest")
    assert await refused_field(shop) == ""
