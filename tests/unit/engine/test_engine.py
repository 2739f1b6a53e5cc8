"""What every engine promises, on each server program."""

from __future__ import annotations

import inspect
from pathlib import Path

from booking_worker.engine.engine import Engine
from tests.support.engines import EngineFactory


async def test_an_embedded_engine_is_an_engine(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    engine: Engine = engine_factory(tmp_path)
    await engine.start()
    try:
        assert engine.description
        async with engine.client() as client:
            await client.set("key", "value")
            assert await client.get("key") == b"value", "replies are bytes"
    finally:
        await engine.stop()


def test_the_seam_stays_small() -> None:
    members = [name for name in vars(Engine) if not name.startswith("_")]
    assert sorted(members) == ["client", "description", "start", "stop"]
    assert all(inspect.getdoc(getattr(Engine, name)) for name in members)
