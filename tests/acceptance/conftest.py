"""Each test that asks for a sale gets one of its own."""

from __future__ import annotations

from tests.support.shop_fixtures import engine, shop, tickets

__all__ = ["engine", "shop", "tickets"]
