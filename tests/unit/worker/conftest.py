"""Each test gets a queue whose clock it moves, real peers over sockets, and ends with the audit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from booking_worker.sandbox.server import Sandbox
from tests.support.queue_fixtures import clock, no_asyncio_task_is_left, queue, stage
from tests.support.stage import Stage
from tests.unit.peers.scripted import ScriptedServer, scripted_server
from tests.unit.worker.crew import Crew

__all__ = ["clock", "no_asyncio_task_is_left", "queue", "stage"]


@pytest.fixture
async def peers() -> AsyncIterator[ScriptedServer]:
    """Booking and Ticket Service at one endpoint, which answer what the test wrote down."""
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Booking and Ticket Service over one strict ledger."""
    served = Sandbox(tmp_path / "ledger.db", default_tickets=10)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def scripted(stage: Stage, peers: ScriptedServer) -> AsyncIterator[Crew]:
    """Workers whose peers answer what the test wrote down."""
    async with Crew(stage, peers.endpoint, peers.endpoint, peers.script) as crew:
        yield crew


@pytest.fixture
async def crew(stage: Stage, sandbox: Sandbox) -> AsyncIterator[Crew]:
    """Workers whose peers are the sandbox, which has ten tickets."""
    async with Crew(stage, sandbox.booking_endpoint, sandbox.ticket_endpoint) as made:
        yield made
