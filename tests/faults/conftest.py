"""Each test gets a sale of its own to harm."""

from __future__ import annotations

from tests.support.queue_fixtures import no_asyncio_task_is_left
from tests.support.shop_fixtures import engine, shop, tickets

__all__ = ["engine", "no_asyncio_task_is_left", "shop", "tickets"]
