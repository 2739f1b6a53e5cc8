from __future__ import annotations

from pathlib import Path

from booking_worker.engine.borrowed import BorrowedEngine
from tests.support.engines import EngineFactory


async def test_its_clients_reach_the_engine_that_another_owns_and_ends(
    engine_factory: EngineFactory, tmp_path: Path
):
    owner = engine_factory(tmp_path, "everysec")
    await owner.start()
    borrowed = BorrowedEngine(tmp_path, "everysec")
    await borrowed.start()
    async with owner.client() as ours, borrowed.client() as theirs:
        await ours.set("key", "value")
        await borrowed.stop()
        assert await theirs.get("key") == b"value"
    assert str(owner.socket) in borrowed.description
    await owner.stop()
