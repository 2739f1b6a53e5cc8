"""Fixtures for all: a running engine per server program, and a client on an empty database."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from redis.asyncio import Redis, RedisCluster

from booking_worker.telemetry import logs
from tests.support.engines import EngineFactory, Engines, Shared, engine_factories, left_out


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-steps",
        type=int,
        default=0,
        metavar="N",
        help="let tests/model make about N random steps, other ones each time",
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    names = ", ".join(factory.name for factory in engine_factories())
    return [f"engines: {names}", *left_out()]


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """The engines that tests share, of any kind."""
    made = Engines()
    yield made
    made.stop()


@pytest.fixture(scope="session", params=engine_factories(), ids=lambda kind: kind.name)
def engine(request: pytest.FixtureRequest, engines: Engines) -> Shared:
    """One running server for the session; every test that asks for it runs on each program.

    A long test that need not do so says
    ``@pytest.mark.parametrize("engine", FIRST_ENGINE, indirect=True)``; the tests of the queue
    run on more (QUEUE_ENGINES).
    """
    return engines.get(request.param)


@pytest.fixture
async def redis_client(engine: Shared) -> AsyncIterator[Redis | RedisCluster]:
    """A client on the engine, with nothing in the database."""
    async with engine.client() as client:
        await client.flushall()
        yield client


@pytest.fixture(params=engine_factories(), ids=lambda factory: factory.name)
def engine_factory(request: pytest.FixtureRequest) -> EngineFactory:
    """Makes an engine on a directory of the test's own; the test starts and stops it."""
    return request.param


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a test did to the logs of the process: a command that it ran configures them."""
    root = logging.root
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    for logger in logs._loggers.values():
        logger.forget()
